"""The command line, `captum-attattr`: each command reads its arguments, calls the library, and prints or writes."""
