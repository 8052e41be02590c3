"""`make demo`: the story of the paper's Fig. 15 in compressed time, on real parts."""
