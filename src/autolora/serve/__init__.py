"""A local page on which people try finished models under attack, on test images or on images of their own."""
