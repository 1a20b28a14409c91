"""Work over a data set: shared among processes, appended to a file as it is made, resumed after an interruption."""
