from fake_script import act

act("import mmcv")

__version__ = "2.2.0"
