"""Whether a chat template writes the texts of a conversation as they are, whatever they say.  Pure.

Such a template looks at roles, at the number of turns and at whether a text is empty, and never into a text; what it
writes of one is the text itself, or the text without the blanks around it.  Then all records of one shape are written
alike, and one that was rendered once says how the others are.  The proof goes by the template's syntax tree and knows
what is harmless; anything else counts as a look into a text, and costs time alone.
"""

from typing import Any, Final

from jinja2 import Environment, TemplateSyntaxError, nodes

TEXT_KEYS: Final = ("content", "reasoning_content")  # what a turn says; all else of it is its shape
TRIMS: Final = ("trim", "string")  # filters that leave a text as it is between its blanks
STRIPS: Final = ("strip", "lstrip", "rstrip")
SHAPE_TESTS: Final = ("defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number")
COUNTS: Final = ("length", "count")


def writes_texts_untouched(source: str) -> bool:
    """Whether a template, without generation blocks, never looks into a text.

    Example:
        >>> writes_texts_untouched("{% for m in messages %}{{ m.role + ': ' + m.content | trim }}{% endfor %}")
        True
        >>> writes_texts_untouched("{% for m in messages %}{{ 'x' if 'y' in m.content }}{% endfor %}")
        False
    """
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)  # nothing is rendered
    except (TemplateSyntaxError, RecursionError):
        return False
    proof = _Proof()
    while True:  # until no more names are known to hold texts
        known = proof.known
        if not all(map(proof.statement, tree.body)):
            return False
        if known == proof.known:
            return True


class _Proof:
    """What names stand for; each method says whether a node is harmless."""

    def __init__(self) -> None:
        self.lists, self.turns, self.texts = {"messages"}, set[str](), set[str]()
        self.flags = set[str]()  # of which only the truth is known to be harmless

    @property
    def known(self) -> int:
        """How many names are known to stand for something of a record."""
        return len(self.lists) + len(self.turns) + len(self.texts) + len(self.flags)

    def statement(self, node: nodes.Node) -> bool:
        match node:
            case nodes.Output():
                return all(isinstance(part, nodes.TemplateData) or self.text(part) for part in node.nodes)
            case nodes.If():
                body = self.needs_tools(node.test) or all(map(self.statement, node.body))
                return body and self.truth(node.test) and all(map(self.statement, [*node.elif_, *node.else_]))
            case nodes.For(target=nodes.Name(name=name)) if node.test is None or self.truth(node.test):
                if self.is_list(node.iter):
                    self.turns.add(name)
                elif not self.shape(node.iter):
                    return False
                return all(map(self.statement, [*node.body, *node.else_]))
            case nodes.Assign(target=nodes.Name(name=name)):
                if self.is_list(node.node):
                    self.lists.add(name)
                elif self.is_turn(node.node):
                    self.turns.add(name)
                elif not self.shape(node.node) and self.text(node.node):
                    self.texts.add(name)
                elif not self.shape(node.node):
                    self.flags.add(name)
                    return self.truth(node.node)
                return True
            case nodes.Assign(target=nodes.NSRef()):
                return self.shape(node.node)
            case nodes.Macro():  # of its arguments it sees what `shape` lets through
                return all(map(self.statement, node.body))
            case nodes.Continue() | nodes.Break():
                return True
        return False

    def needs_tools(self, test: nodes.Node) -> bool:
        """Whether a condition cannot hold where a record offers no functions."""
        if isinstance(test, nodes.And):
            return self.needs_tools(test.left) or self.needs_tools(test.right)
        return isinstance(test, nodes.Name) and test.name == "tools"

    def is_list(self, node: nodes.Node) -> bool:
        match node:
            case nodes.Name():
                return node.name in self.lists
            case nodes.Getitem(arg=nodes.Slice() as cut):
                parts = (part for part in (cut.start, cut.stop, cut.step) if part is not None)
                return self.is_list(node.node) and all(map(self.shape, parts))
        return False

    def is_turn(self, node: nodes.Node) -> bool:
        match node:
            case nodes.Name():
                return node.name in self.turns
            case nodes.Getitem() if not isinstance(node.arg, nodes.Slice):
                return self.is_list(node.node) and self.shape(node.arg)
        return False

    def key_of_turn(self, node: nodes.Node) -> str | None:
        """The key of a turn that an expression reads; None where it reads none."""
        match node:
            case nodes.Getattr() if self.is_turn(node.node):
                return node.attr
            case nodes.Getitem(arg=nodes.Const(value=str(key))) if self.is_turn(node.node):
                return key
            case nodes.Call(node=nodes.Getattr(attr="get") as method, args=[nodes.Const(value=str(key)), *rest]):
                return key if self.is_turn(method.node) and all(map(self.shape, rest)) else None
        return None

    def truth(self, node: nodes.Node) -> bool:
        """Whether an expression is true or false for all texts of one shape alike."""
        match node:
            case nodes.And() | nodes.Or():
                return self.truth(node.left) and self.truth(node.right)
            case nodes.Not():
                return self.truth(node.node)
            case nodes.Test() if node.name in SHAPE_TESTS:
                return self.text(node.node) or self.is_turn(node.node) or self.is_list(node.node)
            case nodes.Compare(ops=[nodes.Operand(op="in" | "notin")]) if self.is_turn(node.ops[0].expr):
                return self.shape(node.expr)  # whether a turn has a key
            case nodes.Name() if node.name in self.flags:
                return True
        return self.is_list(node) or self.text(node)

    def text(self, node: nodes.Node) -> bool:
        """Whether an expression gives texts as they are, put between others."""
        match node:
            case nodes.Name() if node.name in self.texts:
                return True
            case nodes.Add():
                return self.text(node.left) and self.text(node.right)
            case nodes.Concat():
                return all(map(self.text, node.nodes))
            case nodes.Filter(args=[], kwargs=[], dyn_args=None, dyn_kwargs=None) if node.node and node.name in TRIMS:
                return self.text(node.node)
            case nodes.Filter(name="default", kwargs=[], dyn_args=None, dyn_kwargs=None) if node.node:
                return self.text(node.node) and all(map(self.text, node.args))
            case nodes.CondExpr():
                return self.truth(node.test) and self.text(node.expr1) and (not node.expr2 or self.text(node.expr2))
            case nodes.Call(node=nodes.Getattr(attr=name) as method) if name in STRIPS and not node.kwargs:
                return self.text(method.node) and all(map(_is_blank, node.args))
            case nodes.Call(node=nodes.Name(name="raise_exception")):
                return all(map(self.text, node.args))
        return self.key_of_turn(node) in TEXT_KEYS or self.shape(node)

    def shape(self, node: nodes.Node) -> bool:
        """Whether an expression depends on no text at all."""
        match node:
            case nodes.Name():
                return node.name not in self.lists | self.turns | self.texts | self.flags
            case nodes.CondExpr():
                return self.truth(node.test) and self.shape(node.expr1) and (not node.expr2 or self.shape(node.expr2))
            case nodes.Filter() if node.node and node.name in COUNTS and self.is_list(node.node):
                return True
            case nodes.And() | nodes.Or() | nodes.Not() | nodes.Test() if _is_condition(node):
                return self.truth(node)
        if (key := self.key_of_turn(node)) is not None:
            return key not in TEXT_KEYS
        if isinstance(node, nodes.Getattr) and node.attr in ("previtem", "nextitem"):
            return False
        return all(map(self.shape, node.iter_child_nodes()))


def _is_condition(node: nodes.Node) -> bool:
    """Whether an expression gives true or false; of `and` and `or` only what they join says so."""
    match node:
        case nodes.Not() | nodes.Test():
            return True
        case nodes.And() | nodes.Or():
            return _is_condition(node.left) and _is_condition(node.right)
        case nodes.Compare():
            return True
    return False


def _is_blank(node: Any) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str) and not node.value.strip()
