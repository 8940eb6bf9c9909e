"""How good results are: DIMOS' metrics to the letter (released protocol), and honest ones (strict).
"""
