"""Tests for the status page: ``status_pages``, ``status_site``, ``status_view`` and what they show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.model import App, Certificate, Outcome, Record
from scalingo_proxy.services import status_stream
from scalingo_proxy.services.alarms import Alarm
from tests.services.admin_world import NOW, AdminWorld, Reply

HTML = {"Accept": "text/html,*/*"}
TOKEN = "correct-horse-battery-staple"

_VOID = {"meta", "link", "img", "input", "br"}


class Document(HTMLParser):
    """A page as a strict reader sees it: every element closed, with its attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode("utf-8"))
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of every element of a name that has these."""
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]


class StatusCase(SynchronousTestCase):
    """A world with a status page and some apps."""

    token_file = ""

    def setUp(self) -> None:
        self.world = AdminWorld(
            App("hello", ("hello.localhost", "www.hello.localhost"), ("10.0.0.1:80", "10.0.0.2:80")),
            App("idle", ("idle.localhost",), ("10.0.0.3:80",)),
            with_status=True,
            token_file=self.token_file,
        ).start()

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """Ask as a browser does."""
        asked = self.world.begin(method, path, headers=HTML | headers)
        self.world.reactor.advance(0)  # a long table is rendered in several turns
        return asked.reply(method)

    def page(self, path: str, status: int = 200, **headers: str) -> Document:
        reply = self.get(path, **headers)
        self.assertEqual(reply.status, status, reply.body)
        return Document(reply.body)

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> Reply:
        """Send a form as a browser does."""
        data = urlencode(form).encode("ascii")
        told = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://127.0.0.1:8081"}
        asked = self.world.begin("POST", path, data, headers=HTML | told | headers)
        self.world.reactor.advance(0)
        return asked.reply()

    def proof(self, path: str, **headers: str) -> str:
        """What the forms of a page carry."""
        return self.page(path, **headers).all("input", name="proof")[0]["value"]

    def finish(self, app: str = "hello", status: int = 200, **fields: Any) -> Record:
        """A request ends."""
        now = self.world.reactor.seconds()
        record = Record(now, self.world.wall_clock(), "127.0.0.1", "http")
        record.method = "GET"
        record.app, record.status, record.finished_at = app, status, now + 0.02
        for name, value in fields.items():
            setattr(record, name, value)
        self.world.traffic.exchange_finished(record)
        self.world.explain.exchange_finished(record)
        return record


class HeadersTests(StatusCase):
    """What every page says of itself."""

    def test_strict(self) -> None:
        """Nothing from elsewhere, nothing inline, no frame, no guess of a type, nothing kept."""
        for path in (
            "/",
            "/apps/hello",
            "/status.css",
            "/status.js",
            "/status.svg",
            "/login",
            "/apps/nobody",
        ):
            headers = self.get(path).headers
            policy = headers["Content-Security-Policy"]
            self.assertTrue(policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"))
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(headers["Referrer-Policy"], "same-origin")
            self.assertNotIn("Server", headers)
        self.assertEqual(self.get("/").headers["Cache-Control"], "no-store")

    def test_nothing_inline(self) -> None:
        """No element has a style or a handler of its own, and each address is of this site."""
        self.finish(status=502, code="connect-failed", request_id="abc")
        for path in ("/", "/apps/hello", "/requests/abc"):
            document = self.page(path)
            for tag, attributes in document.elements:
                self.assertNotIn(tag, ("style", "iframe", "object", "base"))
                self.assertNotIn("style", attributes)
                self.assertEqual([name for name in attributes if name.startswith("on")], [])
                for name in ("href", "src", "action"):
                    self.assertRegex(attributes.get(name, "/"), r"^(/(?!/)|#)")
            self.assertEqual([each["src"] for each in document.all("script")], ["/status.js"])

    def test_head(self) -> None:
        """HEAD gives the same without a body."""
        reply = self.get("/", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))

    def test_programs_get_the_list(self) -> None:
        """Whoever asks for something else than HTML gets the list of what there is."""
        for accepted in ("text/plain", "application/json"):
            reply = self.world.begin("GET", "/", headers={"Accept": accepted}).reply()
            self.assertIn(b"GET    /api/v1/apps\n", reply.body)

    def test_whoever_takes_anything(self) -> None:
        """The page is for curl and its like, too, with its search and all."""
        for accepted in ("", "*/*", "text/*;q=0.5"):
            asked = self.world.begin("GET", "/?q=hello", headers={"Accept": accepted})
            self.world.reactor.advance(0)
            reply = asked.reply()
            self.assertEqual(reply.headers["Content-Type"], "text/html; charset=utf-8")
            self.assertIn(b"/apps/hello", reply.body)


class AccessibleTests(StatusCase):
    """For keyboards and screen readers."""

    def test_structure(self) -> None:
        """A language, one main heading, landmarks with names, captions, scopes, labels."""
        self.finish(status=502, code="connect-failed", request_id="abc")
        for path in ("/", "/apps/hello", "/requests/abc", "/login"):
            document = self.page(path)
            self.assertEqual(document.all("html")[0]["lang"], "en")
            self.assertEqual(len(document.all("h1")), 1)
            for tag in ("header", "main", "footer", "title"):
                self.assertEqual(len(document.all(tag)), 1, tag)
            self.assertEqual(document.all("a")[0]["href"], "#content")
            ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
            self.assertEqual(len(ids), len(set(ids)))
            for name in ("aria-labelledby", "for"):
                for _, attributes in document.elements:
                    if name in attributes:
                        self.assertIn(attributes[name], ids)
            self.assertEqual(len(document.all("table")), len(document.all("caption")))
            self.assertTrue(all(each.get("scope") in ("col", "row") for each in document.all("th")))
            labelled = {each["for"] for each in document.all("label")}
            for field in document.all("input"):
                self.assertTrue(field["type"] == "hidden" or field["id"] in labelled)
            for image in document.all("img"):
                self.assertIn("alt", image)
            for drawing in document.all("svg"):
                self.assertEqual(drawing["role"], "img")
                self.assertTrue(drawing["aria-label"])

    def test_read_out(self) -> None:
        """Alarms are read out politely when they change; numbers that change all the time are not."""
        document = self.page("/")
        live = [attributes.get("id") for _, attributes in document.elements if "aria-live" in attributes]
        self.assertEqual(live, ["alarms"])


class OverviewTests(StatusCase):
    """The first page."""

    def test_apps(self) -> None:
        """Each app with its last minute, its state and its backends."""
        for _ in range(3):
            self.finish()
        self.finish(status=404)
        document = self.page("/")
        self.assertIn("hello hello.localhost and 1 more running", document.text)
        self.assertIn("2 of 2", document.text)
        cells = {
            each["data-live"]: each
            for each in (attributes for _, attributes in document.elements)
            if "data-live" in each
        }
        self.assertIn("app:hello:2xx", cells)
        self.assertEqual(cells["app:hello:state"]["data-state"], "running")

    def test_search(self) -> None:
        """A part of a name or a domain finds; what was asked for stands in the field."""
        document = self.page("/?q=idle")
        self.assertEqual(document.all("input", type="search")[0]["value"], "idle")
        self.assertEqual(
            [each["href"] for each in document.all("a") if "/apps/" in each["href"]], ["/apps/idle"]
        )
        self.assertIn("No app has this", self.page("/?q=nothing-like-it").text)
        self.assertIn(
            "www", self.page("/?" + urlencode({"q": '"><script>www'})).all("input", type="search")[0]["value"]
        )

    def test_pages(self) -> None:
        """Very many apps come a page at a time, and the links keep the search."""
        for number in range(60):
            self.world.ask("PUT", f"/api/v1/apps/many-{number:02}", {"domains": [f"m{number}.localhost"]})
        document = self.page("/?q=many&page=2")
        self.assertIn("26–50 of 60", document.text)
        links = {each["rel"]: each["href"] for each in document.all("a") if "rel" in each}
        self.assertEqual(links, {"prev": "/?q=many#apps", "next": "/?q=many&page=3#apps"})
        self.assertIn("51–60 of 60", self.page("/?q=many&page=3").text)
        self.assertIn("0 of 60", self.page("/?q=many&page=9").text)

    def test_nonsense(self) -> None:
        """A page or an order that makes no sense is the first one, by name."""
        for query in ("page=0", "page=-1", "page=x", "page=99999999999999", "sort=up", "page=%C3%A9", "x=1"):
            self.assertEqual(self.get(f"/?{query}").status, 200)

    def test_busiest_first(self) -> None:
        """The order by rate."""
        for _ in range(20):
            self.finish("idle")
        self.finish()
        links = [each["href"] for each in self.page("/?sort=rate").all("a") if "/apps/" in each["href"]]
        self.assertEqual(links, ["/apps/idle", "/apps/hello"])

    def test_errors(self) -> None:
        """The last errors lead to what became of them; what a client chose is text and nothing else."""
        self.finish(
            status=502,
            code="connect-failed",
            request_id="a/b",
            method="GET",
            path="/<script>alert(1)</script>?q=secret",
        )
        reply = self.get("/")
        self.assertNotIn(b"<script>alert", reply.body)
        self.assertNotIn(b"secret", reply.body)
        document = Document(reply.body)
        self.assertIn("/<script>alert(1)</script>", document.text)
        self.assertIn("/requests/a%2Fb", [each["href"] for each in document.all("a")])

    def test_alarms(self) -> None:
        """What there is to look at, or that there is nothing."""
        self.assertIn("Nothing to look at.", self.page("/").text)
        self.world.alarms += [Alarm("a disk is full", is_urgent=True)]
        document = self.page("/")
        self.assertIn("a disk is full", document.text)
        self.assertEqual(len(document.all("li", **{"data-state": "bad"})), 1)

    def test_sources(self) -> None:
        """Each source of routes, with its age."""
        self.world.reactor.advance(90.0)
        self.assertIn("file up 2 0 90 s ago", self.page("/").text)

    def test_not_loaded(self) -> None:
        """Before the store is loaded there is a page that says so."""
        world = AdminWorld(with_status=True, loaded=False).start()
        asked = world.begin("GET", "/", headers=HTML)
        world.reactor.advance(0)
        reply = asked.reply()
        self.assertEqual(reply.status, 503)
        self.assertIn("the store is still being loaded", Document(reply.body).text)


class AppTests(StatusCase):
    """The page of one app."""

    def test_backends(self) -> None:
        """Each backend with its state, the reason and since when."""
        self.world.pool("hello")
        document = self.page("/apps/hello")
        self.assertIn("10.0.0.1:80 unproven", document.text)
        self.assertIn("2023-11-14 22:13:20", document.text)
        self.assertIn("described by file", document.text)

    def test_very_many(self) -> None:
        """Of very many backends, some are shown: those in trouble first; of very many domains, the first."""
        app = App(
            "huge",
            tuple(f"d{number}.localhost" for number in range(50)),
            tuple(f"10.0.1.{number}:80" for number in range(250)),
        )
        self.world.file.replace([app])
        self.assertIn("No more than 200 are shown", self.page("/apps/huge").text)
        pool = self.world.pool("huge")
        for _ in pool.members:
            lease = pool.lease()
            assert lease is not None
            if lease.member is pool.members[-1]:
                lease.release(Outcome.CONNECT_FAILED, 0.0)
        document = self.page("/apps/huge")
        self.assertIn("d19.localhost and 30 more", document.text)
        self.assertEqual(len(document.all("th", scope="row")), 200)
        self.assertIn("10.0.1.249:80 quarantined", document.text)

    def test_unknown(self) -> None:
        """An app that is not there, and a path that leads nowhere."""
        self.assertIn("there is no app 'nobody'", self.page("/apps/nobody", 404).text)
        for path in (
            "/apps",
            "/apps/",
            "/apps/hello/x",
            "/apps/%FF",
            "/requests/",
            "/requests/a/b",
            "/status.css/x",
        ):
            self.assertIn(self.get(path).status, (400, 404), path)

    def test_errors(self) -> None:
        """Its own last errors only."""
        self.finish(status=503, code="queue-full", request_id="mine")
        self.finish("idle", status=503, code="queue-full", request_id="not-mine")
        hrefs = [each["href"] for each in self.page("/apps/hello").all("a")]
        self.assertIn("/requests/mine", hrefs)
        self.assertNotIn("/requests/not-mine", hrefs)

    def test_certificates(self) -> None:
        """Those that are served for its domains, with the days they have left."""
        self.assertIn("None covers it.", self.page("/apps/hello").text)
        domains = ("hello.localhost", "www.hello.localhost")
        self.world.certificates.set(Certificate("mine", b"", b"", domains, NOW - 1, NOW + 2.5 * 86400, "AB"))
        text = self.page("/apps/hello").text
        self.assertIn("mine hello.localhost, www.hello.localhost 2 2023-11-17 10:13", text)


class RequestTests(StatusCase):
    """The page of one request."""

    def test_story(self) -> None:
        """What became of it, the earlier uses of its id too."""
        self.finish(status=200, request_id="abc", method="GET", host="hello.localhost", path="/<b>")
        self.finish(status=502, code="connect-failed", request_id="abc", method="GET", path="/two")
        document = self.page("/requests/abc")
        self.assertIn("502 connect-failed", document.text)
        self.assertIn("The same id was used before", document.text)
        self.assertIn("GET /<b>", document.text)

    def test_unknown(self) -> None:
        """One that nobody remembers."""
        self.assertIn("nothing is known of request 'x'", self.page("/requests/x", 404).text)


class ButtonsTests(StatusCase):
    """The forms."""

    def state(self) -> str:
        return self.world.resolver.apps()["hello"].state.value

    def test_states(self) -> None:
        """Each button does what it says, and the page afterwards tells so."""
        for verb, state in (
            ("pause", "paused"),
            ("resume", "running"),
            ("stop", "stopped"),
            ("start", "running"),
        ):
            reply = self.post(f"/apps/hello/{verb}", {"proof": self.proof("/apps/hello")})
            self.assertEqual((reply.status, reply.headers["Location"]), (303, f"/apps/hello?done={verb}"))
            self.assertEqual(self.state(), state)
            self.assertEqual(len(self.page(reply.headers["Location"]).all("p", role="status")), 1)
        self.assertEqual(self.page("/apps/hello?done=%3Cb%3E").all("p", role="status"), [])

    def test_which_make_sense(self) -> None:
        """Buttons that would change nothing are off."""
        buttons = [
            "disabled" not in each
            for each in self.page("/apps/hello").all("button", type="submit")
            if "class" not in each
        ]
        self.assertEqual(buttons, [True, False, True, False])

    def test_drain(self) -> None:
        """A backend is taken out, and finishes what it has; its line tells how far that is."""
        lease = self.world.pool("hello").lease()
        assert lease is not None
        address = lease.member.backend.address
        form = {"proof": self.proof("/apps/hello"), "backend": address}
        self.assertEqual(self.post("/apps/hello/drain", form).status, 303)
        self.assertEqual(len(self.world.resolver.apps()["hello"].backends), 1)
        self.world.reactor.advance(10.0)
        document = self.page("/apps/hello")
        self.assertIn(
            f"{address} draining no longer a backend of the app; 1 request still open", document.text
        )
        self.assertIn("20 s left", document.text)
        (bar,) = document.all("progress")
        self.assertEqual((bar["value"], bar["max"]), ("10", "30"))
        self.assertEqual(self.post("/apps/hello/drain", form).status, 303)
        self.assertEqual(self.post("/apps/hello/drain", {**form, "backend": "10.9.9.9:1"}).status, 404)

    def test_forged(self) -> None:
        """Without the proof of the page, from another site, or as something else: nothing happens."""
        proof = self.proof("/apps/hello")
        right = {"proof": proof}
        for form, headers, status in (
            ({}, {}, 403),
            ({"proof": "0" * 64}, {}, 403),
            (right, {"Origin": "http://evil.example"}, 403),
            (right, {"Origin": "null"}, 403),
            (right, {"Sec-Fetch-Site": "cross-site"}, 403),
            (right, {"Sec-Fetch-Site": "same-site"}, 403),
            (right, {"Host": "evil.example"}, 403),
            (right, {"Content-Type": "text/plain"}, 415),
            ({**right, "x": "y" * 5000}, {}, 413),
        ):
            reply = self.post("/apps/hello/stop", form, **headers)
            self.assertEqual(reply.status, status, (form, headers))
        self.assertEqual(self.get("/apps/hello/stop").status, 404)
        self.assertEqual(self.get("/apps/hello", method="PUT").status, 405)
        self.assertEqual(self.post("/apps/hello/explode", right).status, 404)
        self.assertEqual(self.post("/", right).status, 405)
        self.assertEqual(self.state(), "running")


class SignInTests(StatusCase):
    """Where a token is set."""

    def setUp(self) -> None:
        self.token_file = self.mktemp()
        with open(self.token_file, "w") as file:
            file.write(f"{TOKEN}\n")
        super().setUp()

    def sign_in(self, token: str = TOKEN, target: str = "/apps/hello") -> Reply:
        return self.post("/login", {"token": token, "target": target})

    def cookie(self) -> dict[str, str]:
        return {"Cookie": self.sign_in().headers["Set-Cookie"].partition(";")[0]}

    def test_asked_for(self) -> None:
        """Every page asks for it, leads on to where one wanted to go, and shows nothing before."""
        for path in ("/", "/apps/hello", "/requests/abc", "/events?view=overview"):
            reply = self.get(path)
            self.assertEqual(reply.status, 401)
            document = Document(reply.body)
            self.assertEqual(document.all("input", name="target")[0]["value"], path)
            self.assertNotIn("hello.localhost", document.text)
        self.assertEqual(self.get("/status.css").status, 200)

    def test_bearer(self) -> None:
        """Whoever bears the token needs no session."""
        self.assertEqual(self.get("/", Authorization=f"Bearer {TOKEN}").status, 200)

    def test_right(self) -> None:
        """A cookie that no script and no other site can use, and then the page that was asked for."""
        reply = self.sign_in()
        self.assertEqual((reply.status, reply.headers["Location"]), (303, "/apps/hello"))
        cookie = reply.headers["Set-Cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/"):
            self.assertIn(word, cookie)
        self.assertNotIn(TOKEN, cookie)
        self.assertEqual(self.get("/", **self.cookie()).status, 200)
        self.assertIn("Sign out", self.page("/", **self.cookie()).text)

    def test_wrong(self) -> None:
        """Another token opens nothing."""
        reply = self.sign_in("guess")
        self.assertEqual(reply.status, 401)
        self.assertNotIn("Set-Cookie", reply.headers)
        self.assertIn("That is not the token.", Document(reply.body).text)
        self.assertEqual(self.get("/", Cookie="scalingo-proxy-session=guess").status, 401)

    def test_leads_nowhere_else(self) -> None:
        """After signing in one stays on this site, whatever a link said."""
        for target in (
            "//evil.example/",
            "https://evil.example/",
            "/\\evil.example",
            "evil",
            "/a\r\nX: y",
            "",
        ):
            self.assertEqual(self.sign_in(target=target).headers["Location"], "/", target)
        self.assertEqual(self.sign_in(target="/?q=a&page=2").headers["Location"], "/?q=a&page=2")

    def test_another_site(self) -> None:
        """A page of another site cannot sign anybody in."""
        reply = self.post("/login", {"token": TOKEN}, Origin="http://evil.example")
        self.assertEqual(reply.status, 403)

    def test_api(self) -> None:
        """A browser that has signed in may read the API, and change nothing through it."""
        cookie = self.cookie()
        self.assertEqual(self.get("/api/v1/apps", **cookie).status, 200)
        self.assertEqual(self.get("/metrics", **cookie).status, 200)
        self.assertEqual(
            self.world.begin("POST", "/api/v1/apps/hello/stop", headers=cookie).reply().status, 401
        )

    def test_buttons(self) -> None:
        """With a session they work, without one they do not, and each session has its own proof."""
        one, other = self.cookie(), self.cookie()
        proof = self.proof("/apps/hello", **one)
        self.assertEqual(self.post("/apps/hello/stop", {"proof": proof}).status, 401)
        self.assertEqual(self.post("/apps/hello/stop", {"proof": proof}, **other).status, 403)
        self.assertEqual(self.post("/apps/hello/stop", {"proof": proof}, **one).status, 303)

    def test_sign_out(self) -> None:
        """The session is over, and the cookie goes."""
        cookie = self.cookie()
        reply = self.post("/logout", {"proof": self.proof("/", **cookie)}, **cookie)
        self.assertEqual(reply.status, 303)
        self.assertIn("max-age=0", reply.headers["Set-Cookie"].lower())
        self.assertEqual(self.get("/", **cookie).status, 401)
        self.assertEqual(self.get("/logout", Authorization=f"Bearer {TOKEN}").status, 405)


class StreamTests(StatusCase):
    """The changes, as they happen."""

    def events(self, data: bytes) -> list[str]:
        """The lines that tell something."""
        return re.findall(r"^data: (.*)$", data.decode("ascii"), re.MULTILINE)

    def test_changes(self) -> None:
        """Everything first, then what has become different, and nothing while nothing has."""
        asked = self.world.begin("GET", "/events?view=overview", headers=HTML)
        data = asked.transport.value()
        self.assertIn(b"Content-Type: text/event-stream; charset=utf-8\r\n", data)
        self.assertIn(b"Cache-Control: no-store\r\n", data)
        (first,) = self.events(data)
        self.assertIn('"app:hello:rate":"0"', first)
        asked.transport.clear()
        self.world.reactor.advance(1.0)
        asked.transport.clear()
        self.world.resolver.apps()
        self.world.begin("POST", "/api/v1/apps/hello/pause")
        self.world.reactor.advance(1.0)
        (event,) = self.events(asked.transport.value())
        self.assertIn('"app:hello:state":"paused"', event)
        self.assertNotIn("app:idle:state", event)

    def test_an_app(self) -> None:
        """The page of one app has its stream, which ends with the app."""
        self.world.ask("PUT", "/api/v1/apps/short", {"domains": ["s.localhost"], "backends": ["10.0.0.9:80"]})
        asked = self.world.begin("GET", "/events?view=app&name=short", headers=HTML)
        self.assertIn("backend:10.0.0.9:80:serving:state", self.events(asked.transport.value())[0])
        self.world.ask("DELETE", "/api/v1/apps/short")
        asked.transport.clear()
        self.world.reactor.advance(1.0)
        self.assertTrue(asked.transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.get("/events?view=app&name=nobody").status, 404)

    def test_busiest(self) -> None:
        """Ordered by rate, the rows of the page are told on, whatever their rates become."""
        asked = self.world.begin("GET", "/events?view=overview&sort=rate", headers=HTML)
        asked.transport.clear()
        self.finish("idle")
        self.world.reactor.advance(1.0)
        (event,) = self.events(asked.transport.value())
        self.assertIn('"app:idle:2xx":"1"', event)
        self.assertNotIn('"shapes":{"apps"', event)

    def test_shared(self) -> None:
        """Many who look at the same cost little more than one."""
        asked = [self.world.begin("GET", "/events?view=overview", headers=HTML) for _ in range(3)]
        made: list[str] = []
        overview = self.world.view.overview
        self.patch(
            self.world.view, "overview", lambda *words, **more: made.append("") or overview(*words, **more)
        )
        self.world.reactor.advance(1.0)
        self.assertEqual(len(made), 1)
        for one in asked:
            one.transport.clear()
        self.finish()
        self.world.reactor.advance(1.0)
        for one in asked:
            self.assertIn('"app:hello:2xx":"1"', self.events(one.transport.value())[0])

    def test_leaves(self) -> None:
        """Nothing is left of a viewer who left."""
        asked = self.world.begin("GET", "/events?view=overview", headers=HTML)
        asked.leave()
        self.world.reactor.advance(0)
        before = len(self.world.reactor.getDelayedCalls())
        self.world.reactor.advance(5.0)
        self.assertEqual(len(self.world.reactor.getDelayedCalls()), before)
        self.assertEqual(before, 0)

    def test_does_not_read(self) -> None:
        """Nothing gathers for a viewer who does not read."""
        asked = self.world.begin("GET", "/events?view=overview", headers=HTML)
        producer = asked.transport.producer
        assert producer is not None
        producer.pauseProducing()
        asked.transport.clear()
        for _ in range(5):
            self.finish()
            self.world.reactor.advance(1.0)
        self.assertEqual(asked.transport.value(), b"")
        producer.resumeProducing()
        self.world.reactor.advance(1.0)
        self.assertEqual(len(self.events(asked.transport.value())), 1)

    def test_another_site(self) -> None:
        """A page of another site does not take up anybody's place."""
        for site in ("cross-site", "same-site"):
            reply = self.get("/events?view=overview", **{"Sec-Fetch-Site": site})
            self.assertEqual(reply.status, 403)

    def test_too_many(self) -> None:
        """There is a limit, which tells when to come again."""
        self.patch(status_stream, "MAX_VIEWERS", 1)
        self.world.begin("GET", "/events?view=overview", headers=HTML)
        reply = self.get("/events?view=overview")
        self.assertEqual((reply.status, reply.headers["Retry-After"]), (503, "30"))

    def test_stop(self) -> None:
        """The proxy can stop while somebody looks."""
        asked = self.world.begin("GET", "/events?view=overview", headers=HTML)
        self.world.stop()
        self.assertTrue(asked.transport.value().endswith(b"0\r\n\r\n"))
        self.assertTrue(asked.transport.disconnecting)
