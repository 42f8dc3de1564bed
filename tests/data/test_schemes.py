"""Schemes: each is converted to IOB2 by rules written out here, and detection finds what a file was written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemeta.data.schemes import DETECTED, SCHEMES, Scheme, SchemeError, detect, to_iob2
from pemeta.errors import DataError

Entity = tuple[str, int]
"""A type and a number of words; words outside of entities have the type O."""

LETTERS = {"IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}


def written(entities: list[Entity], scheme: Scheme) -> list[str]:
    """The tags of entities in a scheme: an oracle that writes, where the library reads."""
    tags: list[str] = []
    last = "O"
    for kind, length in entities:
        if kind == "O":
            tags += ["O"] * length
        elif scheme in LETTERS:
            begin, inside, end, single = LETTERS[scheme]
            letters = single if length == 1 else begin + inside * (length - 2) + end
            tags += [f"{letter}-{kind}" for letter in letters]
        elif scheme == "types":
            tags += [kind] * length
        else:
            begin = "B" if scheme != "IOB1" or last == kind else "I"
            tags += [f"{letter}-{kind}" for letter in begin + "I" * (length - 1)]
        last = kind
    return tags


entities = st.lists(st.tuples(st.sampled_from(["O", "PER", "LO-C", "O"]), st.integers(1, 4)), min_size=1, max_size=7)


@pytest.mark.parametrize("scheme", ["IOB2", "IOB1", "IOBES", "BILOU", "BMES"])
@given(sentence=entities)
def test_what_was_written_in_a_scheme_comes_back_as_iob2(scheme, sentence):
    assert to_iob2(written(sentence, scheme), scheme) == written(sentence, "IOB2")


@given(sentence=entities)
def test_types_alone_join_neighbours_of_one_type(sentence):
    joined: list[Entity] = []
    for kind, length in sentence:
        if joined and joined[-1][0] == kind:
            length += joined.pop()[1]
        joined.append((kind, length))
    assert to_iob2(written(sentence, "types"), "types") == written(joined, "IOB2")


@pytest.mark.parametrize("scheme", ["IOB2", "IOB1", "IOBES", "BILOU", "BMES", "types"])
@given(sentences=st.lists(entities, min_size=1, max_size=4))
def test_detection_reads_every_file_as_its_scheme_does(scheme, sentences):
    tags = [written(one, scheme) for one in sentences]
    found = detect(tags)
    assert [to_iob2(one, found.scheme) for one in tags] == [to_iob2(one, scheme) for one in tags]
    made = [tag for one in tags for tag in to_iob2(one, scheme)]
    assert found.entities == sum(tag.startswith("B-") for tag in made)
    assert set(found.types) == {tag[2:] for tag in made if tag != "O"}


@pytest.mark.parametrize(("tags", "scheme", "says"), [
    ([["O", "I-PER", "I-PER"], ["I-LOC", "B-LOC"]], "IOB1", "its tags are IOB1: 3 entities of the types PER, LOC"),
    ([["B-PER", "I-PER"], ["O"]], "IOB2", "its tags are IOB2: 1 entity of the types PER"),
    ([["S-PER", "O"]], "IOBES", "its tags are IOBES: 1 entity of the types PER"),
    ([["U-PER", "O"]], "BILOU", "its tags are BILOU: 1 entity of the types PER"),
    ([["B-A", "M-A", "E-A"]], "BMES", "its tags are BMES: 1 entity of the types A"),
    ([["e-mail", "PER"]], "types", "its tags are types: 2 entities of the types e-mail, PER"),
    ([["PER", "PER", "O", "geo"]], "types", "its tags are types: 2 entities of the types PER, geo"),
    ([["O", "O"]], "IOB2", "its tags are IOB2: 0 entities"),
    ([["O"], ["O", "I-PER"]], "IOB1", "its tags are IOB1: 1 entity of the types PER"),
    ([["B-X-Y", "I-X-Y"]], "IOB2", "its tags are IOB2: 1 entity of the types X-Y"),
])  # fmt: skip
def test_what_detection_says(tags, scheme, says):
    found = detect(tags)
    assert (found.scheme, str(found)) == (scheme, says)


def test_detection_looks_at_all_of_it():
    """Thousands of sentences that fit IOB2, and one that only fits IOB1 before or after them."""
    many = [["O", "O"]] * 3000
    assert detect([*many, ["O", "I-PER"]]).scheme == "IOB1"
    with pytest.raises(
        SchemeError, match=r"sentence 4001, tag 1: no scheme fits all tags; IOB2 is closest, but tag 'I-PER' follows"
    ):
        detect([["B-PER", "I-PER"]] * 4000 + [["I-PER"]])


@pytest.mark.parametrize(("tags", "says"), [
    ([["B-PER", "O"], ["O", "I-PER"], ["I-LOC"]], "sentence 1, tag 1: no scheme fits all tags; IOB1 is closest, but"),
    ([["B-PER", "O", "I-PER"]], "or say scheme: conlleval, for which an I- that goes on with nothing begins an"),
    ([["B-PER", "E-LOC"]], "sentence 1, tag 2: no scheme .*; IOBES is closest, but tag 'E-LOC' follows 'B-PER'"),
    ([["B", "I", "O"]], "tag 'B' is a letter without a type, and may be a type too; write B-TYPE"),
    ([["O", "S"]], "tag 'S' is a letter without a type"),
    ([["b-per", "i-per", "O"]], "tag 'b-per' may be a letter and a type in another form, or a type, as scheme"),
    ([["O", "B_PER", "I_PER"]], "sentence 1, tag 2: tag 'B_PER' may be a letter and a type in another form"),
    ([["O"], ["PER-B", "PER-I"]], "sentence 2, tag 1: tag 'PER-B' may be a letter and a type in another form"),
    ([["PER", ""]], "sentence 1, tag 2: no scheme fits all tags; types is closest, but tag '' is empty"),
    ([["PER", "B-LOC"]], "IOB2 is closest, but tag 'PER' is no tag of IOB2, which has O, B-TYPE, I-TYPE"),
    ([["B-PER"], ["U-PER"], ["S-PER"]], "no scheme fits all tags"),
])  # fmt: skip
def test_what_fits_no_scheme_or_may_be_two_things_is_refused(tags, says):
    with pytest.raises(SchemeError, match=says):
        detect(tags)


MISFITS = {
    "IOB2": [
        (["O", "I-A"], 2, "tag 'I-A' follows 'O', but in IOB2 an entity starts with 'B-A'"),
        (["B-A", "I-B"], 2, "an entity starts with 'B-B'"),
        (["S-A"], 1, "tag 'S-A' is no tag of IOB2, which has O, B-TYPE, I-TYPE"),
        *(([tag], 1, f"tag {tag!r} is no tag of IOB2") for tag in ("A", "", "b-A", "B-", "o", "B_A", "0")),
    ],
    "IOB1": [
        (["O", "B-A"], 2, "in IOB1 'B-A' stands only right after an entity of the same type"),
        (["I-B", "B-A"], 2, "stands only right after"),
        (["B-A"], 1, "stands only right after"),
    ],
    "IOBES": [
        (["B-A"], 1, "the sentence ends after 'B-A', but in IOBES an entity of several words ends with 'E-A'"),
        (["B-A", "O"], 2, "ends with 'E-A'"),
        (["B-A", "B-A", "E-A"], 2, "ends with 'E-A'"),
        (["I-A"], 1, "an entity starts with 'B-A' or is 'S-A'"),
        (["S-A", "E-A"], 2, "starts with"),
        (["B-A", "E-B"], 2, "starts with"),
        (["E-A", "I-A"], 1, "starts with"),
        (["B-A", "L-A"], 2, "no tag of IOBES"),
    ],
    "BILOU": [
        (["B-A", "I-A"], 2, "ends with 'L-A'"),
        (["U-A", "L-A"], 2, "or is 'U-A'"),
        (["S-A"], 1, "no tag of BILOU"),
    ],
    "BMES": [(["B-A", "I-A"], 2, "no tag of BMES"), (["M-A"], 1, "or is 'S-A'")],
    "types": [
        (["B-A"], 1, "tag 'B-A' has the form of another scheme's, not of a type alone"),
        (["I"], 1, "has the form of another"),
        ([""], 1, "tag '' is empty"),
    ],
    "conlleval": [(["S-A"], 1, "no tag of conlleval"), (["A"], 1, "no tag of conlleval")],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tag_that_does_not_fit_its_scheme_is_refused(scheme):
    for tags, number, says in MISFITS[scheme]:
        with pytest.raises(DataError) as caught:
            to_iob2(tags, scheme)
        assert str(caught.value).startswith(f"tag {number} of {len(tags)}: "), caught.value
        assert says in str(caught.value)


def test_conlleval_takes_every_order():
    """The rules of the script's ``startOfChunk`` for B and I: B, or a type that is not the one before."""
    tags = ["I-A", "B-A", "I-A", "I-B", "O", "I-B", "B-A"]
    assert to_iob2(tags, "conlleval") == ["B-A", "B-A", "I-A", "B-B", "O", "B-B", "B-A"]


def test_every_scheme_is_detected_but_the_one_that_all_files_fit():
    assert set(SCHEMES) == {*DETECTED, "conlleval"}
    assert to_iob2([], "IOBES") == []
