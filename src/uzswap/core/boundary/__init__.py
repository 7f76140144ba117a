"""What Python sees of the data plane: integers and buffers in, integers out."""
