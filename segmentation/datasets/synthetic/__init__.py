"""Generate a MovieLens-like data set of any size, with a planted segment for each user.

Its marginals match published figures of The Movies Dataset (``rounakbanik/the-movies-dataset``):
the histogram of ratings, the numbers of users and movies, the heavy tails of ratings per user and
per movie, the number of titles per genre, and the quartiles of the timestamps. It contains no
record of that data set. ``model`` plans it; ``writer.write_dataset`` writes it.
"""

#: Marks a complete data set; it is written last.
MARKER = "synthetic.json"
#: The planted segment of each user.
PLANTED = "planted.parquet"
