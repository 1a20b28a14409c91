"""The published code's tasks by their public name; see `captum_attattr.published.tasks`."""

from captum_attattr.published.tasks import TASKS, Task, task

__all__ = ["TASKS", "Task", "task"]
