"""What the market and the book are: frozen values, no I/O, no time of their own."""
