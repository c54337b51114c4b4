"""Pure tensor functions, each written out once: the reference that a faster kernel is tested against.

The letter key for shape suffixes, in `ops/` and `nn/`:

    B  sequences in a rectangular batch     N  packed tokens, of all sequences
    T  new tokens of a sequence             S  tokens a query may see
    D  width of the residual stream         H  query heads
    J  key and value heads                  R  queries that share a key head, H / J
    K  channels of a head                   F  hidden width of the MLP
    V  vocabulary                           C  labels
    O  output rows of a matrix              I  input columns of a matrix
    P  pairs of rotated channels, K / 2     M  packed tokens of the encoder
    E  experts                              G  groups of experts
    A  experts that a token goes through    U  channels of a value head, where not K
    L  tokens of a chunk                    W  taps of a filter
"""
