"""What `dcaf inspect` does: the text it is given, the places of sessions in it, the claims in words, and the verdict."""
