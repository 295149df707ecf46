"""LoRA files of other programs, from their keys to the update of each layer.

names     which layer of which network a key names, and which factor of its update it is
settings  the alpha of each layer, from wherever it is stated
updates   the update of a layer from its factors: LoRA, Tucker, LoHa, LoKr, DoRA, full difference
kinds     what a file is that holds none of these
"""
