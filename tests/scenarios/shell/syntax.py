"""Scripts into trees: lists of commands, pipelines, `if`, `for`, `while`, `{ }`, words with quotes and expansions, here-documents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class UnsupportedError(Exception):
    """The script uses what this shell does not know."""


@dataclass(frozen=True)
class Literal:
    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Variable:
    """`operator` is `:-`, `-`, `:+` or nothing; `word` comes after it."""

    name: str
    operator: str = ""
    word: str = ""
    quoted: bool = False


@dataclass(frozen=True)
class Substitution:
    script: tuple[AndOr, ...]
    quoted: bool = False


Piece = Literal | Variable | Substitution
Word = tuple[Piece, ...]


@dataclass(frozen=True)
class Redirect:
    """`operator` is `>`, `>>`, `<`, `>&` or `<<`, whose `target` is the text itself."""

    descriptor: int
    operator: str
    target: Word


@dataclass(frozen=True)
class Simple:
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class If:
    branches: tuple[tuple[tuple[AndOr, ...], tuple[AndOr, ...]], ...]
    otherwise: tuple[AndOr, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class For:
    name: str
    words: tuple[Word, ...]
    body: tuple[AndOr, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class While:
    condition: tuple[AndOr, ...]
    body: tuple[AndOr, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class Group:
    body: tuple[AndOr, ...]
    redirects: tuple[Redirect, ...] = ()


Command = Simple | If | For | While | Group


@dataclass(frozen=True)
class Pipeline:
    commands: tuple[Command, ...]
    negated: bool = False


@dataclass(frozen=True)
class AndOr:
    """Pipelines with the operator before each: `&&` or `||`; nothing before the first."""

    parts: tuple[tuple[str, Pipeline], ...]


Tree = tuple[AndOr, ...]


@dataclass
class _Heredoc:
    delimiter: str
    quoted: bool
    body: Word = ()


@dataclass
class _Token:
    """An operator, a newline (`\\n`), or a word. `bare` is a word without quotes and expansions, which may be a keyword."""

    operator: str = ""
    word: Word = ()
    bare: str = ""
    heredoc: _Heredoc | None = None


_OPERATOR = re.compile(r"[0-9]?(?:>>|>&|>)|<<-?|<|&&|\|\||;;|[;|&()]|\n")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BRACED = re.compile(r"\{(#?)(\w+|[?#@*$!])(?:(:?[-+])([^}]*))?\}")
_PLAIN = re.compile(r"[^\s;|&()<>'\"\\$`]+")
_END = _Token("\n")


def parse(script: str) -> Tree:
    """The tree of a script. Raises UnsupportedError for all that is not known here, mistakes of the script among it."""
    parser = _Parser(_Lexer(script).tokens())
    tree = parser.commands(())
    if not parser.over:
        raise UnsupportedError(f"cannot go on at {parser.peek().bare or parser.peek().operator!r}")
    return tree


@dataclass
class _Lexer:
    text: str
    at: int = 0
    found: list[_Token] = field(default_factory=list)
    waiting: list[_Heredoc] = field(default_factory=list)

    def tokens(self) -> list[_Token]:
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            elif character == "#":
                self.at = (self.text.find("\n", self.at) + 1 or len(self.text) + 1) - 1
            elif match := _OPERATOR.match(self.text, self.at):
                self._operator(match)
            else:
                self.found.append(self._word())
        if self.waiting:
            raise UnsupportedError("a here-document without its end")
        return self.found

    def _operator(self, match: re.Match[str]) -> None:
        self.at = match.end()
        operator = match.group()
        if operator in {"<<-", ";;", "&", "(", ")"}:
            raise UnsupportedError(f"{operator!r} is not known")
        if operator == "\n":
            self._bodies()
        if operator == "<<":
            self._heredoc()
            return
        self.found.append(_Token(operator))

    def _heredoc(self) -> None:
        self.at += len(self.text[self.at :]) - len(self.text[self.at :].lstrip(" "))
        word = self._word().word
        delimiter = "".join(piece.text for piece in word if isinstance(piece, Literal))
        heredoc = _Heredoc(delimiter, any(isinstance(piece, Literal) and piece.quoted for piece in word))
        self.waiting.append(heredoc)
        self.found.append(_Token("<<", heredoc=heredoc))

    def _bodies(self) -> None:
        for heredoc in self.waiting:
            lines = []
            while True:
                end = self.text.find("\n", self.at)
                line = self.text[self.at : end if end >= 0 else len(self.text)]
                if end < 0 and line != heredoc.delimiter:
                    raise UnsupportedError("a here-document without its end")
                self.at = end + 1 if end >= 0 else len(self.text)
                if line == heredoc.delimiter:
                    break
                lines.append(f"{line}\n")
            text = "".join(lines)
            heredoc.body = (Literal(text, quoted=True),) if heredoc.quoted else _Lexer(text).soft(end="")
        self.waiting.clear()

    def _word(self) -> _Token:
        pieces: list[Piece] = []
        start = self.at
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in " \t\n;|&()<>":
                break
            if character == "'":
                end = self.text.find("'", self.at + 1)
                if end < 0:
                    raise UnsupportedError("a quote that is not closed")
                pieces.append(Literal(self.text[self.at + 1 : end], quoted=True))
                self.at = end + 1
            elif character == '"':
                self.at += 1
                pieces += [Literal("", quoted=True), *self.soft(end='"')]
            elif character == "\\":
                pieces.append(Literal(self.text[self.at + 1 : self.at + 2], quoted=True))
                self.at += 2
            elif character == "`":
                raise UnsupportedError("backquotes are not known")
            elif character == "$":
                pieces.append(self._expansion(quoted=False))
            else:
                match = _PLAIN.match(self.text, self.at)
                assert match is not None
                pieces.append(Literal(match.group()))
                self.at = match.end()
        bare = self.text[start : self.at] if all(isinstance(p, Literal) and not p.quoted for p in pieces) else ""
        return _Token(word=tuple(pieces), bare=bare)

    def soft(self, *, end: str) -> Word:
        """What stands in double quotes up to `end`, or to the end of the text."""
        pieces: list[Piece] = []
        plain = ""
        while True:
            if self.at >= len(self.text):
                if end:
                    raise UnsupportedError("a quote that is not closed")
                break
            character = self.text[self.at]
            if end and character == end:
                self.at += 1
                break
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in ("$", "`", "\\", *([end] if end else [])):
                plain += self.text[self.at + 1]
                self.at += 2
            elif character == "`":
                raise UnsupportedError("backquotes are not known")
            elif character == "$":
                pieces += [Literal(plain, quoted=True), self._expansion(quoted=True)]
                plain = ""
            else:
                plain += character
                self.at += 1
        return (*pieces, Literal(plain, quoted=True))

    def _expansion(self, *, quoted: bool) -> Piece:
        text, at = self.text, self.at + 1
        if text.startswith("((", at):
            raise UnsupportedError("arithmetic is not known")
        if text.startswith("(", at):
            end = _closing(text, at)
            self.at = end + 1
            return Substitution(parse(text[at + 1 : end]), quoted)
        if text.startswith("{", at):
            match = _BRACED.match(text, at)
            if match is None or match[1]:
                raise UnsupportedError(f"cannot expand {text[self.at : self.at + 20]!r}")
            self.at = match.end()
            return Variable(match[2], match[3] or "", match[4] or "", quoted)
        if text.startswith("'", at) and not quoted:
            raise UnsupportedError("$'...' is not known")
        match = re.compile(r"[A-Za-z_]\w*|[?$]").match(text, at)
        if match is None:
            self.at = at
            return Literal("$", quoted)
        self.at = match.end()
        return Variable(match.group(), quoted=quoted)


def _closing(text: str, at: int) -> int:
    """Where the parenthesis at `at` is closed; quotes may hold others."""
    depth = 0
    for match in re.compile(r"'[^']*'|\\.|[()]", re.DOTALL).finditer(text, at):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    raise UnsupportedError("a parenthesis that is not closed")


_ENDS = {"then", "elif", "else", "fi", "do", "done", "}"}
_UNKNOWN = {"case", "until", "function", "select", "[["}


@dataclass
class _Parser:
    tokens: list[_Token]
    at: int = 0

    @property
    def over(self) -> bool:
        return self.at >= len(self.tokens)

    def peek(self) -> _Token:
        return _END if self.over else self.tokens[self.at]

    def take(self) -> _Token:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, keyword: str) -> None:
        if self.take().bare != keyword:
            raise UnsupportedError(f"{keyword!r} is missing")

    def commands(self, ends: tuple[str, ...]) -> Tree:
        """Commands up to one of these keywords, which stays."""
        found = []
        while not self.over:
            if self.peek().operator in {"\n", ";"}:
                self.take()
            elif self.peek().bare in ends or (not ends and self.peek().bare in _ENDS):
                break
            else:
                found.append(self._and_or())
        return tuple(found)

    def _and_or(self) -> AndOr:
        parts = [("", self._pipeline())]
        while self.peek().operator in {"&&", "||"}:
            operator = self.take().operator
            self._newlines()
            parts.append((operator, self._pipeline()))
        return AndOr(tuple(parts))

    def _newlines(self) -> None:
        while not self.over and self.peek().operator == "\n":
            self.take()

    def _pipeline(self) -> Pipeline:
        negated = self.peek().bare == "!"
        if negated:
            self.take()
        commands = [self._command()]
        while self.peek().operator == "|":
            self.take()
            self._newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    def _command(self) -> Command:
        word = self.peek().bare
        if word in _UNKNOWN or word in _ENDS:
            raise UnsupportedError(f"{word!r} is not known here")
        match word:
            case "if":
                return self._if()
            case "for":
                return self._for()
            case "while":
                self.take()
                condition = self.commands(("do",))
                return While(condition, self._body(), self._redirects())
            case "{":
                self.take()
                body = self.commands(("}",))
                self.expect("}")
                return Group(body, self._redirects())
        return self._simple()

    def _if(self) -> If:
        branches = []
        while self.take().bare in {"if", "elif"}:
            condition = self.commands(("then",))
            self.expect("then")
            branches.append((condition, self.commands(("elif", "else", "fi"))))
            if self.peek().bare != "elif":
                break
        otherwise: Tree = ()
        if self.peek().bare == "else":
            self.take()
            otherwise = self.commands(("fi",))
        self.expect("fi")
        return If(tuple(branches), otherwise, self._redirects())

    def _for(self) -> For:
        self.take()
        name = self.take().bare
        self.expect("in")
        words = []
        while self.peek().word:
            words.append(self.take().word)
        while self.peek().operator in {"\n", ";"} and not self.over:
            self.take()
        return For(name, tuple(words), self._body(), self._redirects())

    def _body(self) -> Tree:
        self.expect("do")
        body = self.commands(("done",))
        self.expect("done")
        return body

    def _redirects(self) -> tuple[Redirect, ...]:
        found = []
        while (redirect := self._redirect()) is not None:
            found.append(redirect)
        return tuple(found)

    def _redirect(self) -> Redirect | None:
        token = self.peek()
        if token.heredoc is not None:
            self.take()
            return Redirect(0, "<<", token.heredoc.body)
        match = re.fullmatch(r"([0-9]?)(>>|>&|>|<)", token.operator)
        if match is None:
            return None
        self.take()
        target = self.take().word
        if not target:
            raise UnsupportedError("a redirection without a target")
        return Redirect(int(match[1] or (0 if match[2] == "<" else 1)), match[2], target)

    def _simple(self) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            redirect = self._redirect()
            if redirect is not None:
                redirects.append(redirect)
            elif not self.peek().word:
                break
            else:
                word = self.take().word
                assignment = None if words else _assignment(word)
                if assignment is None:
                    words.append(word)
                else:
                    assignments.append(assignment)
        if not (assignments or words or redirects):
            raise UnsupportedError(f"no command before {self.peek().operator!r}")
        return Simple(tuple(assignments), tuple(words), tuple(redirects))


def _assignment(word: Word) -> tuple[str, Word] | None:
    first = word[0]
    if not isinstance(first, Literal) or first.quoted:
        return None
    name, equals, rest = first.text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        return None
    return name, (Literal(rest), *word[1:])
