"""What the artifact services of Google's ADK promise: the behaviours of their tests, and what their documents say besides."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import anyio

from tests.related.related_systems import BANK, Contract, System, require

ARTIFACTS: Final = Contract("google-adk's artifact services", "`tests/unittests/artifacts` of google/adk-python")

NAME: Final = "scan.png"


async def begin(system: System) -> None:
    """Two sessions of ann and one of ben, all of which have the same names."""
    for user, session_id in (("ann", "v1"), ("ann", "v2"), ("ben", "v1")):
        await system.create(user, session_id)


@ARTIFACTS.promises
async def an_artifact_that_was_never_saved_is_not_there(system: System) -> None:
    await begin(system)
    require(await system.load_file("ann", "v1", NAME) is None, "something is loaded")


@ARTIFACTS.promises
async def what_was_saved_is_loaded_and_gone_once_it_was_deleted(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", NAME, b"\0\xff", mime="image/png")
    require(await system.load_file("ann", "v1", NAME) == (b"\0\xff", "image/png"), "something else is loaded")
    await system.delete_file("ann", "v1", NAME)
    require(await system.load_file("ann", "v1", NAME) is None, "it is still there")


@ARTIFACTS.promises
async def the_names_of_a_session_are_listed_in_their_order(system: System) -> None:
    await begin(system)
    for at in (3, 1, 0, 4, 2):
        await system.save_file("ann", "v1", f"name{at}", b"1")
    require(await system.list_files("ann", "v1") == [f"name{at}" for at in range(5)], "there are others, or in another order")


@ARTIFACTS.promises
async def versions_are_numbered_from_0(system: System) -> None:
    await begin(system)
    saved = [await system.save_file("ann", "v1", NAME, bytes([at])) for at in range(3)]
    require(saved == [0, 1, 2], "they have other numbers")
    require([found.version for found in await system.list_file_versions("ann", "v1", NAME)] == saved, "others are listed")


@ARTIFACTS.promises
async def a_name_of_the_user_keeps_its_prefix_in_a_list(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", "user:card.pdf", b"1")
    await system.save_file("ann", "v1", NAME, b"1")
    require(sorted(await system.list_files("ann", "v1")) == [NAME, "user:card.pdf"], "it is listed under another name")


@ARTIFACTS.promises
async def a_version_is_known_with_its_media_type_and_its_metadata(system: System) -> None:
    await begin(system)
    await _check_versions(system, NAME)


@ARTIFACTS.promises
async def so_is_one_of_a_name_of_the_user(system: System) -> None:
    await begin(system)
    await _check_versions(system, "user:" + NAME)


@ARTIFACTS.promises
async def of_an_artifact_that_is_not_there_no_version_is_known(system: System) -> None:
    await begin(system)
    require(await system.list_file_versions("ann", "v1", NAME) == [], "there is one")


@ARTIFACTS.promises
async def a_version_behind_the_newest_is_not_there(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", NAME, b"1")
    require(await system.load_file("ann", "v1", NAME, version=3) is None, "something is loaded")


@ARTIFACTS.promises
async def the_newest_version_is_loaded_and_an_older_one_by_its_number(system: System) -> None:
    await begin(system)
    for data in (b"old", b"new"):
        await system.save_file("ann", "v1", NAME, data)
    found = [await system.load_file("ann", "v1", NAME, version=version) for version in (None, 0, 1)]
    require([one and one[0] for one in found] == [b"new", b"old", b"new"], "others are loaded")


@ARTIFACTS.promises
async def what_is_saved_as_the_users_is_there_in_each_session_and_without_one(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", "user:card", b"1")
    for session_id in ("v2", None):
        found = await system.load_file("ann", session_id, "user:card")
        require(found is not None and found[0] == b"1", "it is not there")
    require(await system.save_file("ann", "v2", "user:card", b"2") == 1, "it is another artifact")


@ARTIFACTS.promises
async def sessions_users_and_applications_share_nothing_else(system: System) -> None:
    await begin(system)
    await system.create("ann", "v1", app=BANK)
    await system.save_file("ann", "v1", NAME, b"1")
    await system.save_file("ann", "v1", "user:card", b"1")
    require(await system.load_file("ann", "v2", NAME) is None, "another session has it")
    for name in (NAME, "user:card"):
        require(await system.load_file("ben", "v1", name) is None, "another user has it")
        require(await system.load_file("ann", "v1", name, app=BANK) is None, "another application has it")


@ARTIFACTS.promises
async def an_artifact_may_be_empty(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", NAME, b"")
    found = await system.load_file("ann", "v1", NAME)
    require(found is not None and found[0] == b"", "it is not loaded")


@ARTIFACTS.promises
async def a_name_may_be_a_path_that_leads_away(system: System) -> None:
    await begin(system)
    for name in ("../../x", "/x", "a/../../../b"):
        await system.save_file("ann", "v1", name, name.encode())
        found = await system.load_file("ann", "v1", name)
        require(found is not None and found[0] == name.encode(), "another one is loaded")
    require(await system.list_files("ben", "v1") == [], "it has led to another user")


@ARTIFACTS.promises
async def twenty_saves_at_once_are_twenty_versions(system: System) -> None:
    await begin(system)
    numbers = [await system.save_file("ann", "v1", NAME, b"first")]

    async def save(at: int) -> None:
        numbers.append(await system.save_file("ann", "v1", NAME, b"%d" % at))

    async with anyio.create_task_group() as tasks:
        for at in range(1, 20):
            tasks.start_soon(partial(save, at))
    require(sorted(numbers) == list(range(20)), "two have one number")
    found = [await system.load_file("ann", "v1", NAME, version=at) for at in range(20)]
    require(len({one[0] for one in found if one is not None}) == 20, "one is lost")


@ARTIFACTS.promises
async def what_is_deleted_and_saved_again_begins_with_0(system: System) -> None:
    await begin(system)
    for _ in range(2):
        await system.save_file("ann", "v1", NAME, b"1")
    await system.delete_file("ann", "v1", NAME)
    require(await system.save_file("ann", "v1", NAME, b"2") == 0, "it goes on counting")


@ARTIFACTS.promises
async def a_session_that_is_deleted_takes_its_artifacts_along(system: System) -> None:
    await begin(system)
    await system.save_file("ann", "v1", NAME, b"1")
    await system.delete("ann", "v1")
    await system.create("ann", "v1")
    require(await system.load_file("ann", "v1", NAME) is None, "a new session of the same id has them")


async def _check_versions(system: System, name: str) -> None:
    before = time.time() - 1
    for at in range(2):
        await system.save_file("ann", "v1", name, b"12", mime="image/png", metadata={"at": at})
    found = await system.list_file_versions("ann", "v1", name)
    require(
        [(one.version, one.mime, one.metadata) for one in found] == [(at, "image/png", {"at": at}) for at in range(2)], "not so"
    )
    require(all(one.created_at is not None and before <= one.created_at <= time.time() + 1 for one in found), "no time is known")
