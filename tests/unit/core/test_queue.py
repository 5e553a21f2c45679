"""The queue of one endpoint: who is next, of those that a connection would suit."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, strategies as st

from conpool._core.queue import Queue


@dataclass(eq=False)
class Person:
    """Somebody in the queue."""

    number: int
    fresh: bool = False
    coming: object | None = None


def in_line(*people: Person) -> Queue[Person]:
    """A queue in which all of `people` stand in line."""
    queue: Queue[Person] = Queue()
    for person in people:
        line = queue.fresh_line if person.fresh else queue.line
        line[person] = None
    return queue


def step_aside(queue: Queue[Person], person: Person, coming: object | None) -> None:
    """Something is under way for `person`, or no more."""
    queue.remove(person)
    person.coming = coming
    queue.put_aside(person)


def test_nobody_is_next_in_an_empty_queue() -> None:
    queue: Queue[Person] = Queue()
    assert (queue.find(), len(queue), list(queue)) == (None, 0, [])


def test_the_oldest_is_next_in_whichever_line_it_stands() -> None:
    """G13."""
    first, second, third = Person(1, fresh=True), Person(2), Person(3, fresh=True)
    queue = in_line(first, second, third)
    assert list(queue) == [first, second, third]
    assert queue.find() is first
    queue.remove(first)
    assert queue.find() is second


def test_those_who_want_a_new_connection_are_passed_over_for_a_used_one() -> None:
    first, second = Person(1, fresh=True), Person(2)
    assert in_line(first, second).find(is_usual=True) is second
    assert in_line(first).find(is_usual=True) is None


def test_those_for_whom_something_is_under_way_are_passed_over_for_a_dial() -> None:
    first, second = Person(1), Person(2)
    queue = in_line(first, second)
    step_aside(queue, first, "dial")
    assert queue.find(is_unprovided=True) is second
    step_aside(queue, second, "dial")
    assert queue.find(is_unprovided=True) is None
    assert queue.find() is first


def test_whoever_loses_its_dial_keeps_its_place() -> None:
    """G13."""
    people = [Person(number) for number in range(3)]
    queue = in_line(*people)
    step_aside(queue, people[1], "dial")
    step_aside(queue, people[1], None)
    assert list(queue) == people
    queue.remove(people[0])
    assert queue.find(is_unprovided=True) is people[1]


def test_those_who_come_back_stand_in_order_before_all_who_came_later() -> None:
    """G13: whichever of them comes back first."""
    people = [Person(number) for number in range(1, 6)]
    queue = in_line(*people)
    for number in range(3):
        queue.remove(people[number])
    for number in (1, 0, 2):
        queue.put_aside(people[number])
    assert list(queue) == people
    assert queue.find(is_usual=True, is_unprovided=True) is people[0]


def test_a_new_connection_is_for_the_oldest_of_those_who_take_any_and_those_who_do_not() -> None:
    people = [Person(1, fresh=True), Person(2), Person(3, fresh=True), Person(4)]
    queue = in_line(*people)
    step_aside(queue, people[0], "dial")
    assert queue.find() is people[0]
    assert queue.find(is_unprovided=True) is people[1]
    assert queue.find(is_usual=True) is people[1]


def test_counts_those_for_whom_nothing_is_under_way() -> None:
    people = [Person(1, fresh=True), Person(2), Person(3), Person(4, fresh=True)]
    queue = in_line(*people)
    assert queue.count_unprovided() == 4
    for person in people[:2]:
        step_aside(queue, person, "dial")
    assert queue.count_unprovided() == 2
    step_aside(queue, people[0], None)
    step_aside(queue, people[1], None)
    assert queue.count_unprovided() == 4


def test_counts_those_who_take_a_used_connection() -> None:
    people = [Person(1, fresh=True), Person(2), Person(3), Person(4)]
    queue = in_line(*people)
    step_aside(queue, people[0], "dial")
    step_aside(queue, people[1], "check")
    step_aside(queue, people[2], None)
    assert queue.count_usual() == 3


def count_fresh_before(queue: Queue[Person], person: Person | None) -> int:
    return next(count for count in range(99) if not queue.has_fresh_before(person, count))


def test_counts_those_who_want_a_new_one_and_stand_before_another() -> None:
    people = [Person(number, fresh=number != 2) for number in range(5)]
    queue = in_line(*people)
    assert count_fresh_before(queue, people[2]) == 2
    assert count_fresh_before(queue, None) == 4
    step_aside(queue, people[0], "dial")
    assert count_fresh_before(queue, people[2]) == 1
    step_aside(queue, people[0], None)
    assert count_fresh_before(queue, people[2]) == 2
    assert count_fresh_before(queue, None) == 4


def test_whoever_lost_its_dial_counts_only_for_those_behind_it() -> None:
    """Found by a random walk: it was counted before everybody."""
    older, wants_new, younger = Person(1), Person(2, fresh=True), Person(3)
    queue = in_line(older, wants_new, younger)
    step_aside(queue, wants_new, "dial")
    step_aside(queue, wants_new, None)
    assert count_fresh_before(queue, older) == 0
    assert count_fresh_before(queue, younger) == 1


def test_f147_counting_those_before_another_stops_where_it_is_enough() -> None:
    """G34: ten thousand want a new connection behind a gate."""
    last = Person(10_000)
    queue = in_line(*[Person(number, fresh=True) for number in range(10_000)], last)
    assert queue.has_fresh_before(last, 2)


def test_whoever_leaves_is_found_nowhere() -> None:
    """G10."""
    people = [Person(1), Person(2, fresh=True), Person(3), Person(4, fresh=True)]
    queue = in_line(*people)
    step_aside(queue, people[2], "dial")
    step_aside(queue, people[3], None)
    for person in people:
        queue.remove(person)
        assert person not in list(queue)
    assert (len(queue), queue.find(), queue.count_unprovided(), queue.count_usual()) == (
        0,
        None,
        0,
        0,
    )


@given(
    st.lists(st.tuples(st.sampled_from(["come", "fresh", "go", "dial", "lose"]), st.integers(0, 9)))
)
def test_a_queue_is_a_list_with_fewer_steps(steps: list[tuple[str, int]]) -> None:
    queue: Queue[Person] = Queue()
    people: list[Person] = []
    for number, (what, which) in enumerate(steps):
        if what in {"come", "fresh"}:
            person = Person(number, what == "fresh")
            (queue.fresh_line if person.fresh else queue.line)[person] = None
            people.append(person)
        elif people:
            person = people[which % len(people)]
            if what == "go":
                queue.remove(person)
                people.remove(person)
            else:
                step_aside(queue, person, "dial" if what == "dial" else None)
        assert list(queue) == people
        assert len(queue) == len(people)
        assert queue.count_usual() == sum(not p.fresh for p in people)
        assert queue.count_unprovided() == sum(p.coming is None for p in people)
        for is_usual in (False, True):
            for is_unprovided in (False, True):
                fit = [
                    p
                    for p in people
                    if not (p.fresh and is_usual) and not (p.coming and is_unprovided)
                ]
                found = queue.find(is_usual=is_usual, is_unprovided=is_unprovided)
                assert found is (fit[0] if fit else None)


def test_shows_how_many_stand_in_it() -> None:
    assert repr(in_line(Person(1), Person(2, fresh=True))) == "<Queue of 2>"
