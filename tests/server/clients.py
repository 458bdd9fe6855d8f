"""What locust's clients do: one search after the other, PAUSE seconds apart."""

import json
import os
import random
from pathlib import Path

from locust import FastHttpUser, constant_pacing, task

REQUESTS = [json.dumps(body).encode() for body in json.loads(Path(os.environ["REQUESTS"]).read_text())]
HEADERS = {"Content-Type": "application/json"}
draw = random.Random(os.environ["SEED"])


class Client(FastHttpUser):
    """Sends a search once the last one has been answered, and PAUSE seconds have passed since it was sent."""

    wait_time = constant_pacing(float(os.environ.get("PAUSE", "0")))

    @task
    def search(self) -> None:
        with self.client.post(
            "/v1/search", data=draw.choice(REQUESTS), headers=HEADERS, catch_response=True
        ) as response:
            if response.status_code == 200 and len(response.json()["hits"]) == 10:
                response.success()
            else:
                response.failure(f"status {response.status_code}")
