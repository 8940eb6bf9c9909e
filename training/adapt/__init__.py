"""`mos adapt`: a light member goes on learning from a user's recordings, without labels."""
