"""Reading of answers: response grammar, boxes, class names, short answers; the words and notations they use."""
