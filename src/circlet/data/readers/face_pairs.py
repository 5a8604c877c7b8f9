"""Lists of pairs of faces: LFW's, and plain ones as CALFW, CPLFW and CFP have."""

from pathlib import Path

from circlet.data.manifest import Manifest
from circlet.data.readers.lists import list_lines
from circlet.data.readers.pair_rows import Picture, pair_manifest
from circlet.data.sources import DataSource
from circlet.errors import CircletError

_Pair = tuple[Picture, Picture, bool]


class LFWPairs(DataSource):
    """Pairs by a list in the form of LFW's pairs.txt.

    The first line says how many folds there are and how many pairs of each kind a fold has ("10 300"), or
    the latter alone ("1100"); a list without that line, as those of RFW, is one fold. Then come for each
    fold first the pairs of one person, "name number number", and then those of two, "name number name
    number". The pictures are NAME/NAME_0001.jpg. The label is the name.

    Args:
        pairs: The list.
        root: The folder of the pictures.
        extension: Of the pictures' names.

    Sources:
        Huang et al., "Labeled Faces in the Wild", 2007; FaceX-Zoo, `test_protocol/lfw/pairs_parser.py`.
    """

    def __init__(self, pairs: str, root: str, extension: str = ".jpg") -> None:
        self.pairs = pairs
        self.root = root
        self.extension = extension

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The list is absent or a line is wrong, or is not what the first line promises.
        """
        path = Path(self.pairs)
        lines = [(number, line.split()) for number, line in list_lines(path)]
        folds, each = 1, None
        if lines and len(lines[0][1]) < 3 and all(word.isdecimal() for word in lines[0][1]):
            *before, each = map(int, lines.pop(0)[1])
            folds = before[0] if before else 1
        pairs = []
        for place, (number, words) in enumerate(lines):
            pair = self._pair(words, f"{path}, line {number}")
            if each is not None and place < 2 * each * folds and pair[2] != (place % (2 * each) < each):
                kind = "one person (name number number)" if not pair[2] else "two (name number name number)"
                raise CircletError(
                    f"{path}, line {number}: {' '.join(words)!r} stands where a pair of {kind} should: each "
                    f"fold has {each} pairs of one person, and then {each} of two"
                )
            pairs.append(pair)
        if not pairs or (each is not None and len(pairs) != 2 * each * folds):
            promised = f", but its first line promises {2 * each * folds}" if each is not None else ""
            raise CircletError(
                f"{path} has {len(pairs)} pairs{promised}: the list is cut off, or has lines too many"
            )
        return pair_manifest(Path(self.root), path.stem, pairs)

    def _pair(self, words: list[str], where: str) -> _Pair:
        same = len(words) == 3
        given, words = words, [words[0], words[1], words[0], words[2]] if same else words
        if len(words) != 4 or not (words[1].isdecimal() and words[3].isdecimal()):
            raise CircletError(
                f"{where}: {' '.join(given)!r} should be 'name number number' or 'name number name number'"
            )
        if same and int(words[1]) == int(words[3]):
            raise CircletError(f"{where}: picture {words[1]} of {words[0]!r} is paired with itself")
        if not same and words[0] == words[2]:
            raise CircletError(f"{where}: {words[0]!r} stands twice in a pair of two people")
        one, other = (
            Picture(f"{name}/{name}_{int(number):04d}{self.extension}", name)
            for name, number in (words[:2], words[2:])
        )
        return one, other, same


class FacePairList(DataSource):
    """Pairs by a plain list, "path path 1" or "path path 0" in each line.

    Or in two lines, "path 1" and "path 1" below it, as CALFW and CPLFW have them; there any number but 0
    (CALFW numbers the people) says that the two are the same.

    Args:
        pairs: The list. Paths have no blanks.
        root: The folder that its paths start from.
        folds: Sort the pairs into so many folds with equally many of each kind, those of one person first.
            For lists that have all pairs of one kind first, as CALFW's and CPLFW's (10). None: as listed.

    Sources:
        FaceX-Zoo, `test_protocol/lfw/pairs_parser.py`.
    """

    def __init__(self, pairs: str, root: str, folds: int | None = None) -> None:
        self.pairs = pairs
        self.root = root
        self.folds = folds

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The list is absent or empty, a line is wrong, or the folds don't divide the pairs.
        """
        path = Path(self.pairs)
        lines = [(number, line.split()) for number, line in list_lines(path)]
        if not lines:
            raise CircletError(f"the list {path} holds no pairs")
        in_two_lines = len(lines[0][1]) == 2
        if in_two_lines and len(lines) % 2 == 1:
            raise CircletError(f"{path}, line {lines[-1][0]}: the second picture of this pair is missing")
        pairs: list[_Pair] = []
        form = "'path number'" if in_two_lines else "'path path 1' or 'path path 0'"
        for number, words in lines:
            right = words[-1].isdecimal() if in_two_lines else words[-1] in ("0", "1")
            if len(words) != (2 if in_two_lines else 3) or not right:
                raise CircletError(f"{path}, line {number}: {' '.join(words)!r} should be {form}")
        if in_two_lines:
            for (_, first), (number, second) in zip(lines[::2], lines[1::2], strict=True):
                if first[1] != second[1]:
                    raise CircletError(
                        f"{path}, line {number}: the pair has the answers {first[1]} and {second[1]}, which "
                        f"should be equal"
                    )
                pairs.append((Picture(first[0]), Picture(second[0]), first[1] != "0"))
        else:
            pairs = [(Picture(words[0]), Picture(words[1]), words[2] == "1") for _, words in lines]
        for (number, _), (one, other, _) in zip(lines[1::2] if in_two_lines else lines, pairs, strict=True):
            if one == other:
                raise CircletError(f"{path}, line {number}: {one.path!r} is paired with itself")
        return pair_manifest(Path(self.root), path.stem, self._in_folds(pairs, path))

    def _in_folds(self, pairs: list[_Pair], path: Path) -> list[_Pair]:
        if self.folds is None:
            return pairs
        kinds = [[pair for pair in pairs if pair[2] == same] for same in (True, False)]
        if self.folds < 1 or any(len(kind) % self.folds for kind in kinds):
            raise CircletError(
                f"{path} has {len(kinds[0])} pairs of one person and {len(kinds[1])} of two, which "
                f"folds = {self.folds} does not divide"
            )
        sizes = [len(kind) // self.folds for kind in kinds]
        return [
            pair
            for fold in range(self.folds)
            for kind, size in zip(kinds, sizes, strict=True)
            for pair in kind[fold * size : (fold + 1) * size]
        ]
