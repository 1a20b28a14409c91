"""Does a map tell the truth: the output without what it names, and with nothing else, and what follows from that."""
