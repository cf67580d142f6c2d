"""The YAML block at the head of a card, changed field by field, so that all else stays as it was written, to the byte.

``ModelCard`` would write the whole block anew: comments, quotes and the layout of lists would go, and a key that stands twice would be lost.
So ``ModelCardData`` only writes the lines of Loradex's own fields, which are put into the text as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData

from loradex.app.describe.ownership import is_empty
from loradex.app.describe.text_edit import FieldChange

LONGEST: Final = 2**16  # characters


@dataclass(frozen=True, slots=True)
class Block:
    """The YAML block of a card.

    Attributes:
        spans: where each top-level field begins, and where its value ends.
        line_break: as the card has them.
    """

    text: str
    fields: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    line_break: str

    @classmethod
    def read(cls, text: str, line_break: str) -> "Block":
        """Parse a block.

        Raises:
            ValueError: it is no mapping, has a key twice, or refers to its own parts.
        """
        if len(text) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} characters")
        try:
            loader = Loader(
                text + line_break
            )  # as what stands at the end shall not mean another thing once lines follow it
            node = loader.get_single_node()
            if node is None:
                return cls(text, {}, {}, line_break)
            if not isinstance(node, yaml.MappingNode) or not all(
                isinstance(key, yaml.ScalarNode) for key, _ in node.value
            ):
                raise ValueError("it is no mapping of names")
            spans = {key.value: (key.start_mark.index, value.end_mark.index) for key, value in node.value}
            if len(spans) < len(node.value):
                raise ValueError("a key stands in it twice")
            return cls(text, loader.construct_document(node), spans, line_break)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from None

    def seen(self, fields: Iterable[str]) -> dict[str, Any]:
        """Some fields; one that is laid out in another way than Loradex does shows its text, so that it counts as a person's."""
        found = {}
        for field in self.spans.keys() & set(fields):
            (start, end), value = self.spans[field], self.fields[field]
            as_written = is_empty(field, value) or self.text.startswith(self.lines_of(field, value), start)
            found[field] = value if as_written else self.text[start:end]
        return found

    def changed(self, changes: Sequence[FieldChange]) -> str:
        """The text of the block with some fields set, and those taken out that are taken back; every other character stays.

        Raises:
            ValueError: its layout is too odd for that.
        """
        edits, added = [], []
        for change in changes:
            new = "" if change.new is None else self.lines_of(change.field, change.new)
            if change.field in self.spans:
                start, end = self.spans[change.field]
                end = (
                    end if is_empty(change.field, change.old) else start + len(self.lines_of(change.field, change.old))
                )
                edits.append((start, end if new else end + len(self.line_break), new))
            else:
                added.append(new)
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        text = self.line_break.join([text, *added] if text else added)
        expected = {**self.fields, **{change.field: change.new for change in changes}}
        for change in changes:
            if change.new is None:
                del expected[change.field]
        if Block.read(text, self.line_break).fields != expected:
            raise ValueError("its layout is too odd to change; write each field on lines of its own")
        return text

    def lines_of(self, field: str, value: Any) -> str:
        """A field as the hub's library writes it."""
        return ModelCardData(**{field: value}).to_yaml(line_break=self.line_break)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without references, by which a small text becomes a huge value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node.

        Raises:
            ValueError: it is a reference to another.
        """
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it refers to its own parts by *; write them out")
        return super().compose_node(parent, index)
