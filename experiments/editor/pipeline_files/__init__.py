"""The files of a pipeline folder that somebody else wrote, checked before anything large is loaded.

families    which pipeline this is, which parts of it are used, and what to do where it is another kind
configs     the settings of UNet, text encoder and autoencoder: types, ranges, and whether they fit each other
schedulers  which solver samples, and the DDIM scheduler on its noise schedule
"""
