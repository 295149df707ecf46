"""What a page consists of, read as a browser reads it."""

import html.parser

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Structure(html.parser.HTMLParser):
    """Checks that every element that opens closes in order, and collects what a browser would fetch and jump to."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.fetched, self.ids, self.targets, self.images = [], [], [], [], []
        self.tags, self.attributes = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.attributes.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        if tag in ("link", "script", "iframe", "object"):
            self.fetched.append(f"<{tag}>")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.targets.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
