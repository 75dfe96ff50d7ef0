"""Partners against enumeration: another recording where there is one, uniformly."""

from collections import Counter

import numpy as np

from vdsm_bench.data.pairing import Pairing

#: two people with windows of several recordings, one with windows of a single one, one with a clip
WHO = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
TAKE = np.array([7, 7, 3, 3, 3, 1, 2, 2, 9, 9, 9, 4])


def allowed(clip, who=WHO, take=TAKE):
    mine = set(np.flatnonzero(who == who[clip]).tolist())
    other_takes = {each for each in mine if take[each] != take[clip]}
    return other_takes or mine - {clip} or {clip}


def drawn(clip, who=WHO, take=TAKE, n=600):
    uniform = (np.arange(n) + 0.5) / n
    return Counter(Pairing(who, take).partners(np.full(n, clip), uniform).tolist())


def test_a_partner_is_of_another_recording_and_every_one_is_as_likely():
    for clip in range(len(WHO)):
        found = drawn(clip)
        assert set(found) == allowed(clip)
        assert set(found.values()) == {600 // len(allowed(clip))}


def test_the_order_in_which_clips_lie_does_not_matter():
    turn = np.random.default_rng(0).permutation(len(WHO))
    who, take = WHO[turn], TAKE[turn]
    for clip in range(len(WHO)):
        assert set(drawn(clip, who, take)) == allowed(clip, who, take)


def test_recordings_of_two_people_with_one_number_are_two():
    who, take = np.array([0, 0, 1, 1]), np.array([5, 6, 5, 5])
    assert Pairing(who, take).alone == 1
    assert set(drawn(0, who, take)) == {1}
    assert set(drawn(2, who, take)) == {3}


def test_those_with_one_recording_are_counted_however_many_clips_it_was_cut_into():
    assert Pairing(WHO, TAKE).alone == 2
    assert Pairing(WHO, np.arange(len(WHO))).alone == 1


def test_clips_that_are_recordings_of_their_own_are_paired_as_ever():
    # the first other clip of the identity by index, then the next: what seeds have always drawn
    who = np.array([1, 0, 1, 0, 1])
    pairing = Pairing(who, np.arange(5))
    first, uniform = np.array([0, 0, 2, 4, 1, 3]), np.array([0.1, 0.9, 0.9, 0.1, 0.5, 0.5])
    assert pairing.partners(first, uniform).tolist() == [2, 4, 4, 0, 3, 1]
