"""Read a pickle as data: nothing that it names is imported, and nothing in it is called.

A pickle is a program for a small stack machine. Python's own machine imports the names that the program holds and calls
them with arguments of its choice, which is how a file of weights or images can run code. The machine here lacks that
one ability: a name stays a word (``vocabulary.Name``), a call is looked up in a vocabulary of functions of ours, and
whatever is not in it is refused by its name.
"""

from autolora.pickles.machine import Persistent, read_pickle
from autolora.pickles.vocabulary import Damaged, Name, Record, Refused, Vocabulary

__all__ = ["Damaged", "Name", "Persistent", "Record", "Refused", "Vocabulary", "read_pickle"]
