"""What is taken out of the time series of one run, by nilearn and from that run alone."""
