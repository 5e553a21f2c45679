"""Bugs that show only if a cancellation, or another task's step, comes at one certain point."""

from __future__ import annotations

from . import Mutation

MUTATIONS = (
    Mutation(
        name="cancelled between hand-over and waking, a task drops what it has",
        file="_lender.py",
        old=(
            "        except BaseException:\n            self._put_back(entry)\n"
            "            raise\n        return entry\n"
        ),
        new="        except BaseException:\n            raise\n        return entry\n",
        tests=("tests/proof/test_schedules.py", "tests/proof/test_cancel.py"),
    ),
    Mutation(
        name="cancelled at the checkpoint after an idle hit, a task drops what it has",
        file="_lender.py",
        old="            if entry is not None:\n                self._put_back(entry)\n            self._failed",
        new="            self._failed",
        tests=("tests/proof/test_cancel.py",),
    ),
    Mutation(
        name="cancelled amid a check, a task drops what it has",
        file="_lender.py",
        old="                self._put_back(entry, exc)\n                raise\n",
        new="                raise\n",
        tests=("tests/proof/test_cancel.py",),
    ),
    Mutation(
        name="a waiter that is cancelled stays in the queue",
        file="_waiting.py",
        old="    engine.core.withdrawn(waiter, engine.now())\n",
        new="",
        tests=("tests/proof/test_schedules.py", "tests/proof/test_cancel.py"),
    ),
    Mutation(
        name="giving back is a checkpoint",
        file="_block.py",
        old="        lease = self.lease\n        assert",
        new=(
            "        from trio.lowlevel import checkpoint\n\n        await checkpoint()\n"
            "        lease = self.lease\n        assert"
        ),
        tests=("tests/proof/test_cancel_release.py",),
    ),
    Mutation(
        name="a dial that is cancelled leaves its socket open",
        file="_dial.py",
        old="    except BaseException:\n        # By force",
        new="    except Exception:\n        # By force",
        tests=("tests/proof/test_cancel_sockets.py",),
    ),
    Mutation(
        name="a goodbye can be cancelled",
        file="_engine.py",
        old="            with trio.CancelScope(shield=True) as scope:\n",
        new="            with trio.CancelScope() as scope:\n",
        tests=("tests/proof/test_cancel_pool.py", "tests/proof/test_cancel_release.py"),
    ),
    Mutation(
        name="the last steps of the end can be cancelled",
        file="_lifecycle.py",
        old="            self._interrupt(None)\n            with trio.CancelScope(shield=True):\n",
        new="            self._interrupt(None)\n            with trio.CancelScope():\n",
        tests=("tests/proof/test_cancel_pool.py",),
    ),
    Mutation(
        name="a pool whose closing is cancelled is not left",
        file="_lifecycle.py",
        old=(
            "        try:\n            self._interrupt(trio.lowlevel.current_task())\n"
            "            with trio.move_on_after(grace):\n"
            "                await self._engine.wait_closed(self._find_borrowers())\n"
            "        finally:\n"
        ),
        new=(
            "        self._interrupt(trio.lowlevel.current_task())\n"
            "        with trio.move_on_after(grace):\n"
            "            await self._engine.wait_closed(self._find_borrowers())\n"
            "        if True:\n"
        ),
        tests=("tests/proof/test_cancel_pool.py",),
    ),
)
