"""`mdplugin tune`: potential + frames + budget -> the fastest precision policy inside the budget, measured as a whole."""
