"""What an edit changed, what it kept, how steady it is and whether it follows the words."""
