from fake_script import act

act("import cumm")

__version__ = "0.8.2"
