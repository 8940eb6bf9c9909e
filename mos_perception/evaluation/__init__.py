"""How good results are: DIMOS' metrics to the letter (parity), and honest ones (strict)."""
