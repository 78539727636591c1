"""Applications: the command line and the web page. No other package imports them."""
