"""Does what is cited support the sentence that cites it?"""
