"""From texts to explanations: encoding, what F is, the maps of one text, token scores."""
