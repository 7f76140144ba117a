"""The engine: :class:`uzswap.engine.zswap.Zswap` puts the parts together and says who acts when."""
