"""The catalogue: the categories of each item, keyed by the id that ratings use.

Kaggle's ``movies_metadata.csv`` is keyed by TMDB ids, while a rating's ``movieId`` is a MovieLens
id; ``links.csv`` maps MovieLens ids to TMDB ids. The original notebook compared the two ids
directly, which drops most ratings and assigns nearly all others to the wrong movie. That join
remains available, with a warning.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import categories, csv_records, identifiers
from segmentation.datasets.filesystem import join_path
from segmentation.datasets.text_form import has_thousands
from segmentation.errors import DataError
from segmentation.schema import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from segmentation.datasets.layouts import Layout
    from segmentation.datasets.reading import CatalogueOptions

#: Two movies of every MovieLens data set. If their ids map to others, the join is wrong.
ANCHORS = {296: "Pulp Fiction", 318: "Shawshank Redemption"}

#: Any integer of this many digits fits in 64 bits.
_SAFE_DIGITS = 18
#: A larger share of a catalogue's ids that are no integers makes them texts.
_MAX_DAMAGED_IDS = 0.001
#: A larger share of items with unreadable categories is not damage but another form.
_MAX_UNREADABLE = 0.01
#: Columns of a catalogue in GroupLens' form.
_GROUPLENS_COLUMNS = ("movieId", "title", "genres")
#: Columns of ``u.item`` before those of the genres, and its genres if there is no ``u.genre``.
_N_ITEM_COLUMNS = 5
_ITEM_CATEGORIES = (
    *("unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
#: Columns that may hold an item's title, in the order of preference.
_TITLES = ("title", "name", "book_title", "item_name", "product_title")
#: Where categories have weights, those below this share of an item's largest weight don't count.
_MIN_WEIGHT = 0.1
#: What a column of flags may hold besides numbers.
_TRUE = frozenset(("true", "yes", "t", "y", "x", "on"))
_FALSE = frozenset(("", "false", "no", "f", "n", "off", "nan", "na", "n/a", "null", "none", "-"))
#: Keys of :attr:`Catalogue.notes`; Kaggle's layout and its links file add more.
_NOTES = (
    "records",
    "malformed_set_aside",
    "duplicates",
    "without_category",
    "categories_unreadable",
)
#: Key of :attr:`Catalogue.notes` → warning if the counter is not zero.
_WARNINGS = {
    "categories_unreadable": "catalogue records have unreadable categories",
    "categories_unsplit": "categories hold a comma, semicolon or slash and were not divided there: "
    "if they are several each, pass --category-separator",
    "malformed_set_aside": "malformed catalogue records were skipped",
    "links_malformed": "malformed records of the links file were skipped",
}


class _Name(str):
    """The name of a category as it is, from a column of flags."""

    __slots__ = ()


@dataclass(slots=True)
class _Item:
    title: str
    #: The fields that hold its categories: several if it has several records.
    fields: tuple[str, ...]


def load_catalogue(layout: Layout, join: str = "links") -> Catalogue:
    r"""Read the catalogue of a layout.

    Parameters
    ----------
    layout
        The files of the data set.
    join
        How ratings map to the catalogue: ``links`` goes through the links file, ``direct`` uses
        ``movieId`` as a TMDB id. Layouts other than Kaggle's ignore it.

    Raises
    ------
    DataError
        If a file is missing, malformed or without items, if no item of the links file is in the
        catalogue, or if well-known ids map to the wrong movies through the links file.

    Examples
    --------
    >>> import fsspec
    >>> from segmentation.datasets import detect_layout
    >>> fs = fsspec.filesystem("memory")
    >>> fs.pipe({"/ml/movies.csv": b"movieId,title,genres\n1,Heat,Crime|Drama\n"})
    >>> fs.pipe({"/ml/ratings.csv": b"userId,movieId,rating\n1,1,5.0\n"})
    >>> catalogue = load_catalogue(detect_layout("memory://ml"))
    >>> [catalogue.categories[code] for code in catalogue.codes]
    ['Crime', 'Drama']
    """
    if layout.name != "kaggle":
        return _read_items(layout)
    items, notes = _read_metadata(layout.items)
    if join == "direct":
        return _build_catalogue(items, layout, notes)
    if layout.links is None:
        raise DataError(
            "{path}: holds no links file; add one, or set {join} to direct",
            "join",
            path=layout.folder,
        )
    links = _read_links(layout.links, notes, layout.reading.ids)
    notes["links_without_record"] = sum(tmdb not in items for tmdb in links.values())
    linked = {item: items[tmdb] for item, tmdb in links.items() if tmdb in items}
    if not linked:
        raise DataError(
            f"{layout.links}: none of its tmdbId values is an id in {layout.items}; use the "
            "links file of this catalogue"
        )
    catalogue = _build_catalogue(linked, layout, notes)
    if wrong := find_wrong_anchors(catalogue):
        item, title = next(iter(wrong.items()))
        raise DataError(
            "{path}: movieId {item} maps to {title!r}, but in MovieLens it is {expected!r}; use "
            "the links file that came with these ratings, or set {join} to direct if movieId is "
            "an id of this catalogue",
            "join",
            path=layout.links,
            item=item,
            title=title,
            expected=ANCHORS[item],
        )
    return catalogue


def find_wrong_anchors(catalogue: Catalogue) -> dict[int, str]:
    """Return the ids of :data:`ANCHORS` that map to another movie, each with its title.

    MovieLens' 296 is Pulp Fiction and 318 is The Shawshank Redemption. As TMDB ids they are
    Terminator 3 and The Million Dollar Hotel.
    """
    if catalogue.has_text_ids:
        return {}
    titles = {item: catalogue.title_of(item) for item in ANCHORS}
    return {
        item: title
        for item, title in titles.items()
        if title is not None and ANCHORS[item].lower() not in title.lower()
    }


def direct_join_warning(catalogue: Catalogue) -> str:
    """Return a warning, in one line, of what the direct join does to the data."""
    examples = "; ".join(
        f"movieId {item} ({ANCHORS[item]}) counts as {title!r}"
        for item, title in find_wrong_anchors(catalogue).items()
    )
    return (
        "the direct join uses MovieLens ids as TMDB ids: it drops the ratings of most movies and "
        "assigns nearly all others to the wrong movie"
        + (f" ({examples})" if examples else "")
        + "; join through the links file unless you want to reproduce the original"
    )


def catalogue_warnings(catalogue: Catalogue) -> list[str]:
    """Return one warning per kind of damage in a catalogue."""
    notes = catalogue.notes
    return [f"{notes[name]:,} {text}" for name, text in _WARNINGS.items() if notes.get(name)]


def _read_metadata(path: str) -> tuple[dict[int, _Item], dict[str, int]]:
    """Read Kaggle's ``movies_metadata.csv``; return items by TMDB id, and counters of damage."""
    records = csv_records.read_columns(path, ("id", "genres", "title"))
    header = [name.strip() for name in next(records, [])]
    id_index, categories_index, title_index = _find_columns(path, header, ("id", "genres", "title"))
    # Only the repair of torn records needs the overview.
    overview_index = header.index("overview") if "overview" in header else None
    notes = dict.fromkeys((*_NOTES, "malformed_repaired"), 0)
    items: dict[int, _Item] = {}
    previous: _Item | None = None
    for record in _without_blank(records):
        notes["records"] += 1
        item_id = _parse_id(record[id_index]) if len(record) > id_index else None
        if item_id is None:
            # A stray line break split the previous record; this is its second half, from the
            # middle of the overview on. Only the title is usable: production companies are where
            # the genres should be.
            index = len(record) if overview_index is None else title_index - overview_index
            if previous is not None and not previous.title and len(record) > index:
                previous.title = record[index].strip()
                notes["malformed_repaired"] += 1
            else:
                notes["malformed_set_aside"] += 1
            previous = None
            continue
        categories = record[categories_index] if len(record) > categories_index else ""
        title = record[title_index].strip() if len(record) > title_index else ""
        previous = _Item(title, (categories,))
        _add_item(items, item_id, previous, notes)
    if not items:
        raise DataError(f"{path}: holds no movies; download it again")
    return items, notes


def _without_blank(records: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield the records that hold anything: spreadsheets leave rows of separators."""
    for record in records:
        # The first field that is not empty is hardly ever blank.
        if next(filter(None, record), "").strip() or any(field.strip() for field in record):
            yield record


def _add_item(
    items: dict[Any, _Item], item_id: int | bytes, item: _Item, notes: dict[str, int]
) -> None:
    """Add an item; join the categories of one with several records."""
    first = items.setdefault(item_id, item)
    if first is item:
        return
    notes["duplicates"] += 1
    first.fields = tuple(dict.fromkeys((*first.fields, *item.fields)))


def _read_links(path: str, notes: dict[str, int], kind: str) -> dict[int | bytes, int]:
    """Read the map from MovieLens ids to TMDB ids; add counters of damage to ``notes``."""
    records = csv_records.read_records(path, ("movieId", "tmdbId"))
    header = [name.strip() for name in next(records, [])]
    item_index, tmdb_index = _find_columns(path, header, ("movieId", "tmdbId"))
    notes.update(links=0, links_without_tmdb=0, links_malformed=0)
    pairs: list[tuple[str, str]] = []
    for record in _without_blank(records):
        notes["links"] += 1
        _check_lines(path, notes["links"] + 1, record)
        pairs.append((_get_id_field(record, item_index), _get_id_field(record, tmdb_index)))
    parse_item_id = _choose_id_parser([item for item, _ in pairs], kind)
    links: dict[int | bytes, int] = {}
    for item, tmdb in pairs:
        item_id = parse_item_id(item)
        tmdb_id = int(tmdb) if _is_plain_id(tmdb) else _parse_id(tmdb)
        if item_id is None or item_id in links or (tmdb and tmdb_id is None):
            notes["links_malformed"] += 1
        elif tmdb_id is None:
            notes["links_without_tmdb"] += 1
        else:
            links[item_id] = tmdb_id
    return links


def _get_id_field(record: list[str], index: int) -> str:
    """Return a stripped field of a record; an empty string if the record is too short."""
    return record[index].strip() if index < len(record) else ""


def _read_items(layout: Layout) -> Catalogue:
    """Read a catalogue with one record per item, or per item and category."""
    notes = dict.fromkeys(_NOTES, 0)
    items: dict[int | bytes, _Item] = {}
    records = list(_iterate_items(layout))
    kind = layout.reading.ids
    parse_item_id = _choose_id_parser([item for item, _, _ in records if item is not None], kind)
    for item, title, fields in records:
        notes["records"] += 1
        item_id = None if item is None else parse_item_id(item)
        if item_id is None:
            notes["malformed_set_aside"] += 1
        else:
            _add_item(items, item_id, _Item(title.strip(), fields), notes)
    if not items:
        raise DataError(
            f"{layout.items}: none of its {notes['records']:,} records has an id; use a complete "
            "file"
        )
    return _build_catalogue(items, layout, notes)


def _iterate_items(layout: Layout) -> Iterator[tuple[str | None, str, tuple[str, ...]]]:
    """Yield the id, title and fields of categories of each record; a malformed one has no id."""
    if layout.name == "movielens-100k":
        return _iterate_flags(layout.items, _read_category_names(layout))
    if layout.name == "grouplens-dat":
        records = csv_records.read_records(layout.items, separator="::")
        return (
            (record[0], record[1], (record[2],)) if len(record) == 3 else (None, "", ())
            for record in records
        )
    if layout.catalogue is not None:
        return _iterate_custom(layout)
    return _iterate_grouplens(layout.items)


def _iterate_grouplens(path: str) -> Iterator[tuple[str | None, str, tuple[str, ...]]]:
    records = csv_records.read_records(path, _GROUPLENS_COLUMNS)
    header = [name.strip() for name in next(records, [])]
    flags = header[_N_ITEM_COLUMNS:]
    if len(flags) == len(_ITEM_CATEGORIES) and {*flags} <= {"0", "1"}:
        raise DataError(
            f"{path}: is u.item of MovieLens 100K; name it u.item, and its ratings u.data"
        )
    item, title, categories = _find_columns(path, header, _GROUPLENS_COLUMNS)
    for number, record in enumerate(_without_blank(records), 2):
        if _fits(record, header):
            _check_lines(path, number, (record[item], record[title], record[categories]))
            yield record[item], record[title], (record[categories],)
        else:
            _check_lines(path, number, record)
            yield None, "", ()


def _iterate_custom(layout: Layout) -> Iterator[tuple[str | None, str, tuple[str, ...]]]:
    """Yield the records of a catalogue whose columns the user names."""
    options, path = layout.catalogue, layout.items
    assert options is not None
    header, records = _open_table(path, options)
    is_wide = options.category not in header and "," in options.category
    names = [name.strip() for name in options.category.split(",")] if is_wide else []
    columns = [options.item, *(names or [options.category])]
    columns += [options.weight] if options.weight else []
    item, *places = _find_columns(path, header, columns)
    if is_wide and options.weight:
        raise DataError(
            "{path}: {category_weight} is for a table with one row per item and category; leave it "
            "out for columns of flags",
            "category_weight",
            path=path,
        )
    title = next((header.index(name) for name in _TITLES if name in header), item)
    weights: dict[str, dict[str, float]] = {}
    titles: dict[str, str] = {}
    for number, record in records:
        if not _fits(record, header):
            yield None, "", ()
            continue
        _check_lines(path, number, [record[i] for i in (item, title, *places)])
        place = f"{path}, record {number}"
        if is_wide:
            flags = zip(names, places, strict=True)
            fields = tuple(_Name(name) for name, i in flags if _parse_flag(record[i], name, place))
            yield record[item], record[title], fields
        elif options.weight:
            category, weight = (record[i] for i in places)
            titles.setdefault(record[item], record[title])
            by_category = weights.setdefault(record[item], defaultdict(float))
            by_category[category] += _parse_weight(weight, place)
        else:
            yield record[item], record[title], (record[places[0]],)
    for item_id, by_category in weights.items():
        least = _MIN_WEIGHT * max(by_category.values())
        heavy = (category for category, weight in by_category.items() if weight >= least > 0)
        yield item_id, titles[item_id], tuple(heavy)


def _open_table(
    path: str, options: CatalogueOptions
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the columns of a user's table, numbered without a header, and its numbered records."""
    records = _without_blank(
        csv_records.read_records(path, (options.item,), has_header=not options.is_numbered)
    )
    first = next(records, [])
    if options.is_numbered:
        header = [str(number) for number in range(1, len(first) + 1)]
        return header, enumerate(itertools.chain([first], records), 1)
    return [name.strip() for name in first], enumerate(records, 2)


def _parse_number(field: str) -> float:
    """Return a number, which may have commas between thousands or a decimal one; NaN for text."""
    field = field.strip()
    try:
        return float(field.replace(",", "" if has_thousands(field.encode()) else "."))
    except ValueError:
        return math.nan


def _parse_weight(field: str, place: str) -> float:
    weight = _parse_number(field)
    if not 0 <= weight < math.inf:
        raise DataError(f"{place}: the weight {field[:40]!r} is no number from 0 on; fix it")
    return weight


def _parse_flag(field: str, name: str, place: str) -> bool:
    """Return whether an item belongs to the category of a column of flags."""
    text = field.strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    value = _parse_number(text)
    if not value >= 0:
        raise DataError(
            f"{place}: column {name} holds {field[:40]!r}, which is neither true nor false; write "
            "1 or 0"
        )
    return value > 0


def _check_lines(path: str, number: int, fields: Sequence[str]) -> None:
    """Check that a stray quote has not made one record of several lines."""
    if "\n" in "".join(fields):
        raise DataError(
            f"{path}, record {number}: a quoted field spans lines; close its quote, or write the "
            "field in one line"
        )


def _fits(record: list[str], header: Sequence[str]) -> bool:
    """Return whether a record has a field per column; blank ones at its end don't count."""
    while len(record) > len(header) and not record[-1].strip():
        record.pop()
    return len(record) == len(header)


def _read_category_names(layout: Layout) -> list[str]:
    """Return the categories of ``u.item`` in the order of its columns."""
    path = join_path(layout.folder, "u.genre")
    try:
        pairs = [r for r in csv_records.read_records(path, separator="|") if len(r) == 2]
    except DataError:
        return list(_ITEM_CATEGORIES)
    return [name for name, _ in sorted(pairs, key=lambda pair: _parse_id(pair[1]) or 0)]


def _iterate_flags(
    path: str, categories: Sequence[str]
) -> Iterator[tuple[str | None, str, tuple[str, ...]]]:
    for record in csv_records.read_records(path, separator="|"):
        flags = record[_N_ITEM_COLUMNS:]
        if len(flags) != len(categories):
            yield None, "", ()
            continue
        pairs = zip(categories, flags, strict=True)
        yield record[0], record[1], tuple(name for name, flag in pairs if flag.strip() == "1")


def _find_columns(path: str, header: Sequence[str], names: Sequence[str]) -> list[int]:
    missing = [name for name in names if name not in header]
    if missing and names[0].isdigit():
        raise DataError(
            f"{path}: no column {' and no '.join(missing)}; its {len(header)} columns are numbered "
            "from 1"
        )
    if missing:
        raise DataError(
            f"{path}, line 1: no column {' and no '.join(missing)} (it reads "
            f"{', '.join(header)[:80]!r}); the header must name {', '.join(names)}"
            + ("; without a header, number the columns" if any(map(str.isdigit, header)) else "")
        )
    return [list(header).index(name) for name in names]


def _choose_id_parser(
    fields: Sequence[str], kind: str = "auto"
) -> Callable[[str], int | bytes | None]:
    """Return the parser of a catalogue's ids, see :func:`identifiers.is_string_column`."""
    if kind == "text":
        return _parse_string_id
    if kind == "integer":
        return lambda field: _parse_id(field, allow_padding=True)
    if all(map(_is_plain_id, fields)):
        return int
    encoded = [field.encode() for field in fields]
    is_string = identifiers.is_string_column(encoded, max_damaged=_MAX_DAMAGED_IDS)
    return _parse_string_id if is_string else _parse_id


def _is_plain_id(field: str) -> bool:
    """Return whether ``int`` reads a field as :func:`_parse_id` does."""
    return (
        len(field) <= _SAFE_DIGITS
        and field.isdigit()
        and field.isascii()
        and (field[0] != "0" or len(field) == 1)
    )


def _parse_id(field: str, *, allow_padding: bool = False) -> int | None:
    """Return a field as a non-negative 64-bit integer; None if it is not one."""
    if len(field) <= _SAFE_DIGITS and field.isascii() and field.isdigit():
        is_padded = field[0] == "0" and len(field) > 1
        return int(field) if allow_padding or not is_padded else None
    value = identifiers.parse_integer(field.strip().encode(), allow_padding=allow_padding)
    return value if isinstance(value, int) and value >= 0 else None


def _parse_string_id(field: str) -> bytes | None:
    value = identifiers.parse_string(field.encode())
    return None if isinstance(value, str) else value


def _build_catalogue(
    items: Mapping[Any, _Item], layout: Layout, notes: dict[str, int]
) -> Catalogue:
    """Build the catalogue from items by ``movieId``."""
    item_ids = sorted(items)
    ordered = [items[item] for item in item_ids]
    n_items_with = Counter([item.fields for item in ordered])
    names = _parse_categories(layout, n_items_with, notes)
    n_items: Counter[str] = Counter()
    for fields, count in n_items_with.items():
        n_items.update(dict.fromkeys(names[fields], count))
    top = layout.catalogue.top if layout.catalogue else None
    category_names, codes = categories.name_categories(
        layout.items, n_items, layout.categories, top=top, is_closed=layout.is_closed
    )
    if layout.is_closed:
        notes["categories_unknown"] = len(n_items.keys() - codes.keys())
    codes_of = {
        fields: sorted({codes[name] for name in names_in_fields if name in codes})
        for fields, names_in_fields in names.items()
    }
    coded = [codes_of[item.fields] for item in ordered]
    notes["without_category"] = sum(not row for row in coded)
    offsets = np.zeros(len(ordered) + 1, np.int32)
    np.cumsum([len(row) for row in coded], out=offsets[1:])
    if not offsets[-1]:
        raise DataError(
            f"{layout.items}: no item has a readable category"
            + (" with a weight above 0" if layout.catalogue and layout.catalogue.weight else "")
            + "; fix its column of categories"
        )
    return Catalogue(
        np.array(item_ids, np.int64 if isinstance(item_ids[0], int) else np.bytes_),
        category_names,
        offsets,
        np.array([code for row in coded for code in row], np.int32),
        tuple(item.title for item in ordered),
        notes,
    )


def _parse_categories(
    layout: Layout, n_items_with: Mapping[tuple[str, ...], int], notes: dict[str, int]
) -> dict[tuple[str, ...], list[str]]:
    """Return the names of the categories in fields of items; count unreadable fields.

    ``n_items_with`` are the fields of all items, and how many items have them.

    Raises
    ------
    DataError
        If too many fields can't be read.
    """
    texts = {text for fields in n_items_with for text in fields}
    names = {text for text in texts if isinstance(text, _Name)}
    texts -= names
    separator = layout.catalogue.separator if layout.catalogue else None
    form = categories.recognize_form(texts, separator, layout.categories)
    notes["categories_unsplit"] = categories.count_unsplit(texts, form)
    parsed: dict[str, list[str]] = {name: [name] for name in names}
    unreadable: set[str] = set()
    for text in sorted(texts):
        try:
            parsed[text] = categories.parse_names(text, form)
        except categories.UnreadableError:
            parsed[text] = []
            unreadable.add(text)
    damaged: Counter[str] = Counter()
    for fields, count in n_items_with.items() if unreadable else ():
        damaged.update({text: count for text in fields if text in unreadable})
    n_damaged, n_items = damaged.total(), sum(n_items_with.values())
    notes["categories_unreadable"] = n_damaged
    if n_damaged > max(1, _MAX_UNREADABLE * n_items):
        raise DataError(
            f"{layout.items}: the categories of {n_damaged:,} of {n_items:,} items can't be read, "
            f"such as {next(iter(damaged))[:80]!r}; write names with a separator, as in "
            "Action|Comedy, or a list of names"
        )
    return {fields: [name for text in fields for name in parsed[text]] for fields in n_items_with}
