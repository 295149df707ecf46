"""Machine-checked proofs: theorems of this project whose proofs Coq has checked, in the .v files beside this one.

`FORMAL` says for each claim which theorems those are, what they cover and what they do not. coq.py compiles them and
asks Coq what they rest on; certificates.py lets Coq prove numbers that the Python functions return.
"""

from theory.formal.index import FORMAL, FormalProof

__all__ = ["FORMAL", "FormalProof"]
