"""Edits the YAML block at the head of a card field by field; every other byte stays as it is.

``ModelCard`` would write the whole block anew: comments, quotes and the layout of lists would be lost, and so would a
key that stands twice. So ``ModelCardData`` writes only the lines of Loradex's fields, which are put into the text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData

from loradex.app.describe.ownership import is_empty
from loradex.app.describe.text_edit import FieldChange

MAX_CHARACTERS: Final = 2**16


@dataclass(frozen=True, slots=True)
class YamlBlock:
    """The YAML block of a card.

    Attributes:
        text: the block, without the lines of ``---``.
        fields: its top-level fields.
        spans: the start of each field, and the end of its value, in the text.
        line_break: the line break of the card.
    """

    text: str
    fields: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    line_break: str

    @classmethod
    def parse(cls, text: str, line_break: str) -> "YamlBlock":
        """Parse a block.

        Raises:
            ValueError: it is not a mapping, has a key twice, or uses YAML references.
        """
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
        try:
            # With the line break at its end, the text means the same when lines are added after it.
            loader = LoaderWithoutReferences(text + line_break)
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

    def comparable_fields(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of some fields, to be compared with what Loradex wrote.

        A field in another layout than Loradex writes gives its text instead of its value, so that it never compares
        equal and is left to the person who wrote it.
        """
        fields = {}
        for field in self.spans.keys() & set(names):
            (start, end), value = self.spans[field], self.fields[field]
            has_own_layout = is_empty(field, value) or self.text.startswith(self.dump_field(field, value), start)
            fields[field] = value if has_own_layout else self.text[start:end]
        return fields

    def with_changes(self, changes: Sequence[FieldChange]) -> str:
        """The text of the block after some changes; a field whose new value is None is removed.

        Raises:
            ValueError: the layout of the block does not allow it.
        """
        edits, added = [], []
        for change in changes:
            new = "" if change.new is None else self.dump_field(change.field, change.new)
            if change.field in self.spans:
                start, end = self.spans[change.field]
                if not is_empty(change.field, change.old):
                    end = start + len(self.dump_field(change.field, change.old))
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
        if YamlBlock.parse(text, self.line_break).fields != expected:
            raise ValueError("its layout is too odd to change; write each field on lines of its own")
        return text

    def dump_field(self, field: str, value: Any) -> str:
        """Write a field as the hub's library does."""
        return ModelCardData(**{field: value}).to_yaml(line_break=self.line_break)


class LoaderWithoutReferences(yaml.SafeLoader):
    """PyYAML's safe loader without references, by which a small text could become a huge value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node.

        Raises:
            ValueError: it is a reference to another node.
        """
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it refers to its own parts by *; write them out")
        return super().compose_node(parent, index)
