"""A hub of data sets on this machine: as much of the Hugging Face hub's HTTP interface as its client needs."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its files; counts what it is asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.asked, self.refuse = {}, [], None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().strip(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def do_POST(self):
        content, path, server = self.body(), self.path.split("?")[0], self.server
        server.asked.append(f"POST {path}")
        if server.refuse:
            return self.answer(server.refuse, {"error": "no"}, X_Error_Message="not yours")
        if path == "/api/repos/create":
            said = json.loads(content)
            name = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
            server.repos.setdefault(name, {})
            return self.answer(200, {"url": f"{server.url}/datasets/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name = path.removeprefix("/api/datasets/").rsplit("/", 2)[0]
        if "/preupload/" in path:
            files = json.loads(content)["files"]
            return self.answer(
                200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if "/commit/" in path:
            for line in content.decode().splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    server.repos[name][part["value"]["path"]] = base64.b64decode(part["value"]["content"])
            oid = hashlib.sha1(content).hexdigest()
            return self.answer(200, {"commitUrl": f"{server.url}/datasets/{name}/commit/{oid}", "commitOid": oid})
        return self.answer(404, {"error": path})

    def do_GET(self):
        path, server = self.path.split("?")[0], self.server
        server.asked.append(f"{self.command} {path}")
        if path.startswith("/api/datasets/"):
            name = "/".join(path.split("/")[3:5])
            if name not in server.repos:
                return self.answer(404, {"error": "no repository"}, X_Error_Code="RepoNotFound")
            siblings = [{"rfilename": file} for file in server.repos[name]]
            if "/tree/" in path:
                return self.answer(
                    200,
                    [{"type": "file", "path": f, "size": len(b), "oid": "0"} for f, b in server.repos[name].items()],
                )
            return self.answer(200, {"id": name, "sha": "a" * 40, "siblings": siblings})
        if path.startswith("/datasets/"):
            _, _, organization, name, _, _, *file = path.split("/")
            files = server.repos.get(f"{organization}/{name}")
            if files is None:
                return self.answer(404, X_Error_Code="RepoNotFound")
            data = files.get("/".join(file))
            if data is None:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit="a" * 40)
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            return self.answer(200, data, ETag=tag, X_Repo_Commit="a" * 40)
        return self.answer(404, {"error": path})

    do_HEAD = do_GET


@contextmanager
def running_hub():
    """A hub that listens until the block is through."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
