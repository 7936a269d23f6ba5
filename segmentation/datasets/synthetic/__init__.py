"""A MovieLens-shaped data set of any size, with a planted segment for each user.

Its marginals follow published figures of The Movies Dataset (``rounakbanik/the-movies-dataset``):
the half-star histogram, users and movies, the heavy tails of ratings per user and per movie, the
number of titles a genre, and the quartiles of the timestamps. Nothing of the data set itself is
in it.
"""
