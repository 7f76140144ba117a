"""Where did the memory go: of a process, its stores and its arrays.

strip           where each page of an array is, as PNG, SVG and text
process         the resident set, told apart
stores          which values could not go and why, the largest, the coldest
arrays          by array, where its pages are
words           what they are called
report          all of it, of an engine
"""
