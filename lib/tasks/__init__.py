"""Tasks: what a model is asked, which tests decide, and how public formats are read."""

from lib.tasks.task import Case as Case
from lib.tasks.task import Task as Task
from lib.tasks.task import read_tasks as read_tasks
