"""Sentence frames: templates of requests that fit every rule, and so say nothing about the label.

`{thing}` is a noun phrase, `{action}` a verb phrase, `{doing}` its gerund, `{bare}` either without
determiners. `{is}` agrees with the thing in number. A question ends in "?", a request in "." or
"?"; surface.py may drop the mark. Frames do not use the words `we` and `our`, which rules may turn
on.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Frames(NamedTuple):
    """The frames of one style, and the openers and closers around any request of it."""

    things: tuple[str, ...]
    actions: tuple[str, ...]
    openers: tuple[str, ...] = ("",)
    closers: tuple[str, ...] = ("",)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(frame.strip() for frame in re.split(r"[|\n]", text.strip()))


QUESTION_THINGS = _lines("""
    what {is} {thing}? | what {is} {thing}? | what {is} {thing}? | what {is} {thing} exactly?
    so what {is} {thing}? | do you know what {thing} {is}? | can you tell me what {thing} {is}?
    could you tell me what {thing} {is}? | any idea what {thing} {is}?
    what exactly {is} {thing}? | what can you tell me about {thing}?
    what do I need to know about {thing}? | what should I know about {thing}?
    what is there to know about {thing}? | where can I find {thing}? | where can I find {thing}?
    where do I find {thing}? | where would I find {thing}? | where could I read about {thing}?
    where can I read up on {thing}? | where can I get information on {thing}?
    where can I learn more about {thing}? | where can I look up {thing}?
    where should I look for {thing}? | is there any information on {thing}?
    is there anything on {thing}? | is there something written about {thing}?
    is there a summary of {thing}? | is there an overview of {thing}?
    are there any details on {thing}? | any idea where to find {thing}? | any info on {thing}?
    any details about {thing}? | anything on {thing}? | how do I find {thing}?
    how can I find out about {thing}? | how would I look up {thing}?
    how do I find out more about {thing}? | could you explain {thing}?
    can you explain {thing} to me? | can you look up {thing}? | can you look up {thing} for me?
    could you look into {thing}? | could you check {thing}? | can you check {thing} for me?
    could you find {thing}? | can you find me {thing}? | can you find out about {thing}?
    can you get me {thing}? | can you pull up {thing}? | can you search for {thing}?
    could you search for {thing}? | could you give me a summary of {thing}?
    would you look up {thing} for me? | may I ask about {thing}? | can I ask about {thing}?
    could I get some details on {thing}? | can I see {thing}? | can I get the facts on {thing}?
    what about {thing}? | what's known about {thing}? | what information is there on {thing}?
    what are the details of {thing}? | have you got anything on {thing}? | do you have {thing}?
    do you have anything on {thing}? | do you have information about {thing}?
    do you know anything about {thing}? | do you know where I can find {thing}?
    got anything on {thing}? | who can tell me about {thing}?
    could someone tell me about {thing}? | does anyone know about {thing}?
""")

QUESTION_ACTIONS = _lines("""
    how do I {action}? | how do I {action}? | how do I {action}? | how can I {action}?
    how can I {action}? | how would I {action}? | how could I {action}? | how should I {action}?
    how does one {action}? | how do you {action}? | how do people usually {action}?
    how exactly do I {action}? | so how do I {action}? | how would someone {action}?
    how do I go about {doing}? | how does {doing} work? | how long does it take to {action}?
    how hard is it to {action}? | what's the best way to {action}?
    what's the easiest way to {action}? | what is the right way to {action}?
    what's the process to {action}? | what is the process for {doing}?
    what are the steps to {action}? | what are the steps for {doing}?
    what do I need to {action}? | what do I have to do to {action}?
    what should I know before {doing}? | what does it take to {action}?
    what's involved in {doing}? | what happens when I {action}?
    where do I start if I want to {action}? | where can I {action}? | where do I go to {action}?
    where can I find out how to {action}? | where can I read about {doing}?
    is there a guide on how to {action}? | are there instructions for {doing}?
    is there a quick way to {action}? | is there a simple way to {action}?
    is it possible to {action}? | can you explain how to {action}?
    can you tell me how to {action}? | could you tell me how to {action}?
    could you show me how to {action}? | can you help me {action}?
    could you walk me through {doing}? | do you know how to {action}?
    do you know how I can {action}? | any idea how to {action}? | any tips for {doing}?
    any advice on {doing}? | can I {action}? | am I able to {action}? | when should I {action}?
""")

REQUEST_THINGS = _lines("""
    tell me about {thing}. | tell me more about {thing}. | tell me what {thing} {is}.
    find {thing}. | find {thing} for me. | find me {thing}. | find information about {thing}.
    find out about {thing}. | find out what {thing} {is}. | look up {thing}.
    look up {thing} for me. | look up what {thing} {is}. | look into {thing}.
    look for {thing}. | search for {thing}. | search {thing}. | do a search for {thing}.
    run a search on {thing}. | show me {thing}. | show {thing}.
    show me what there is on {thing}. | get me {thing}. | get {thing} for me.
    get me the details on {thing}. | pull up {thing}. | pull up what you have on {thing}.
    bring up {thing}. | check {thing}. | check {thing} for me. | give me {thing}.
    give me a summary of {thing}. | give me a short overview of {thing}.
    give me details about {thing}. | give me the facts on {thing}. | summarize {thing}.
    explain {thing}. | explain {thing} to me. | describe {thing}. | I need {thing}.
    I need {thing}. | I need to know about {thing}. | I need to find {thing}.
    I need information on {thing}. | I need details on {thing}. | I need to look up {thing}.
    I want to know about {thing}. | I want to read about {thing}. | I want to see {thing}.
    I'd like to know about {thing}. | I'd like to see {thing}.
    I'd like some information about {thing}. | I would like to learn about {thing}.
    I am looking for {thing}. | I'm looking for {thing}. | I'm trying to find {thing}.
    I'm interested in {thing}. | I have a question about {thing}. | {thing}, please.
    {thing} please. | let me see {thing}. | let me know about {thing}. | help me find {thing}.
    help me understand {thing}. | help me with {thing}. | see if you can find {thing}.
    see what you can find on {thing}. | fetch {thing}. | dig up {thing}.
    remind me what {thing} {is}. | point me to {thing}.
""")

REQUEST_ACTIONS = _lines("""
    tell me how to {action}. | tell me how I can {action}. | tell me about {doing}.
    show me how to {action}. | explain how to {action}. | explain to me how to {action}.
    describe how to {action}. | find out how to {action}. | find instructions to {action}.
    find instructions for {doing}. | find me the steps to {action}.
    find me a guide for {doing}. | look up how to {action}. | look up the steps to {action}.
    look up the process for {doing}. | search how to {action}. | search for a way to {action}.
    check how to {action}. | get me instructions to {action}. | get me the steps to {action}.
    give me the steps to {action}. | give me instructions for {doing}.
    give me a short guide on how to {action}. | walk me through {doing}.
    walk me through how to {action}. | help me {action}. | help me {action}.
    help me figure out how to {action}. | I need to {action}. | I need to {action}.
    I need help {doing}. | I need to know how to {action}. | I need instructions for {doing}.
    I have to {action}. | I want to {action}. | I want to know how to {action}.
    I'd like to {action}. | I'd like to know how to {action}. | I would like to {action}.
    I am trying to {action}. | I'm trying to {action}. | I'm not sure how to {action}.
    I don't know how to {action}. | I can't figure out how to {action}.
    I forgot how to {action}. | I have a question about {doing}. | remind me how to {action}.
    let me know how to {action}. | list the steps to {action}.
    see if there is a way to {action}. | point me to a guide for {doing}. | steps to {action}.
    instructions to {action}. | instructions for {doing}.
""")

KEYWORD_THINGS = _lines("""
    {bare} | {bare} | {bare} | {bare} | {bare} | {bare} | {bare} | {bare}? | {bare} info
    {bare} information | {bare} details | {bare} overview | {bare} summary | {bare} explained
    {bare} lookup | {bare} search | {bare} pls | {bare} please | {bare} thx | {bare} help
    {bare} asap | {bare} again | {bare} where | {bare}, where? | {bare} - where to find
    {bare} what is it | {bare} in short | {bare} quickly | {bare} full details
    {bare} quick answer | {bare} short answer | info {bare} | info on {bare} | info about {bare}
    information {bare} | details on {bare} | details {bare} | search {bare} | search: {bare}
    find {bare} | find: {bare} | lookup {bare} | look up {bare} | check {bare} | get {bare}
    show {bare} | open {bare} | where {bare} | where is {bare} | what is {bare} | whats {bare}
    about {bare} | re: {bare} | query: {bare} | question: {bare} | topic: {bare}
    subject: {bare} | need {bare} | need info {bare} | want {bare} | looking for {bare}
    trying to find {bare} | everything on {bare} | anything on {bare} | overview {bare}
    summary {bare} | explain {bare} | tell me {bare} | help {bare} | help with {bare}
    pls find {bare} | quick: {bare}
""")

KEYWORD_ACTIONS = _lines("""
    {bare} | {bare} | {bare} | {bare} | {bare}? | how to {bare} | how to {bare} | how to {bare}?
    how do i {bare} | how {bare} | howto {bare} | how can i {bare} | {bare} how to | {bare} how
    {bare}, how? | {bare} - how? | {bare} steps | {bare} guide | {bare} instructions
    {bare} help | {bare} process | {bare} walkthrough | {bare} step by step | {bare} pls
    {bare} please | {bare} possible? | {bare} quickly | {bare} where | {bare} best way
    steps {bare} | steps to {bare} | guide {bare} | instructions {bare} | instructions to {bare}
    help {bare} | help me {bare} | process to {bare} | way to {bare} | ways to {bare}
    best way to {bare} | easiest way to {bare} | need to {bare} | need help: {bare}
    want to {bare} | trying to {bare} | have to {bare} | can i {bare} | where to {bare}
    when to {bare} | search how to {bare} | find how to {bare} | question: {bare}
    query: how to {bare} | re: {bare}
""")

CHATTY_THINGS = _lines("""
    I was wondering about {thing}. | I was wondering if you could find {thing}.
    I was just wondering what {thing} {is}. | do you happen to know what {thing} {is}?
    do you happen to have anything on {thing}? | would you happen to know about {thing}?
    could you maybe look up {thing} for me? | could you do me a favor and look up {thing}?
    could you quickly check {thing}? | would you mind looking up {thing}?
    would you mind checking {thing} for me? | I keep forgetting what {thing} {is}.
    I can't remember what {thing} {is}. | I can't seem to find {thing} anywhere.
    I can't find {thing}, can you help? | I have no idea what {thing} {is}.
    I have no clue where to find {thing}. | I've been looking for {thing} all morning.
    I've been trying to find {thing} for a while now.
    I've heard about {thing} but I don't know much. | I just need some info on {thing}.
    I could really use some info on {thing}. | I'd love to know more about {thing}.
    I'm curious about {thing}. | I'm a bit confused about {thing}.
    I'm not quite sure about {thing}, can you check?
    somebody asked me about {thing} and I had no answer.
    someone just mentioned {thing}, what's that about? | a colleague asked me about {thing}.
    my boss wants to know about {thing}.
    people keep talking about {thing}, can you fill me in? | it's about {thing}.
    this is about {thing}, where do I look? | {thing}. what can you find?
    {thing} - do you have anything on that? | {thing}... where would I look?
    {thing}, what do you know about it? | need your help with {thing}.
    can you help me out with {thing}? | can you please tell me about {thing}?
    please could you find {thing}? | what was {thing} again? | what {is} {thing} again?
    what do you know about {thing}? | what on earth {is} {thing}?
    what's the deal with {thing}? | any chance you can find {thing}?
    any chance you know what {thing} {is}? | let's talk about {thing}.
    let's see {thing} if you can find anything. | I have a meeting soon and need {thing}.
    I have five minutes to find {thing}. | I'm writing something up and need {thing}.
    I'm putting together some notes on {thing}. | I'm new to this, what {is} {thing}?
    maybe you can help, I need {thing}. | not sure who to ask about {thing}.
    not sure you can help, but I need {thing}. | before I forget, can you look up {thing}?
    I need {thing} for something. | {thing}, any idea? | it's just about {thing}.
""")

CHATTY_ACTIONS = _lines("""
    I was wondering how to {action}. | I was wondering if I can {action}.
    do you happen to know how to {action}? | would you happen to know how I can {action}?
    could you maybe help me {action}? | could you quickly tell me how to {action}?
    would you mind explaining how to {action}? | would you mind showing me how to {action}?
    I keep forgetting how to {action}. | I can't remember how to {action}.
    I have no idea how to {action}. | I have no clue how to {action}.
    I've been trying to {action} all morning. | I've been trying to {action} but I'm stuck.
    I've never had to {action} before. | I just want to {action}.
    I just need to {action}, how hard can it be? | I really need to {action} today.
    I'd love some help {doing}. | I'm struggling with {doing}. | I'm stuck {doing}.
    I'm thinking about {doing}. | I'm supposed to {action} and don't know how.
    I'm about to {action}, anything I should know? | I'm new to this, how do I {action}?
    my friend asked me how to {action}. | a colleague wants to {action}.
    someone asked me how to {action} and I had no answer. | my boss wants me to {action}.
    everyone seems to know how to {action} except me. | it's about {doing}.
    I need to {action}, where do I start? | I want to {action}. what now?
    how am I supposed to {action}? | how do I {action} again? | how on earth do I {action}?
    what was the way to {action} again? | any chance you can help me {action}?
    any chance you know how to {action}? | can you help me out? I need to {action}.
    can you please tell me how to {action}? | please could you tell me how to {action}?
    not sure who to ask, but how do I {action}? | not sure where to start, I need to {action}.
    maybe you can help, I want to {action}. | before I forget, how do I {action}?
    how would you {action}? | where do I even start if I want to {action}?
    it's just about {doing}. | need a hand with {doing}. | need your help, I have to {action}.
    let's say I want to {action}, how would that work? | thinking of {doing}, any pointers?
    trying to {action} here and getting nowhere. | been meaning to {action}, how does it work?
""")

_BLANKS = ("",) * 12

POLITE_OPENERS = (
    *_BLANKS,
    "please, ",
    "quick question: ",
    "hi, ",
    "hello, ",
    "hey, ",
    "excuse me, ",
)
SENTENCE_OPENERS = (
    *_BLANKS,
    "quick question: ",
    "hi, ",
    "hello, ",
    "hey, ",
    "question: ",
    "excuse me, ",
)
POLITE_CLOSERS = (*_BLANKS, "thanks.", "thank you.", "thanks!", "thx", "cheers.")
REQUEST_OPENERS = (*_BLANKS, "hi, ", "hey, ", "hello, ", "quick request: ")
IMPERATIVE_OPENERS = (*_BLANKS, "please ", "please ", "pls ", "hi, ", "hey, ", "hello, please ")
# Requests that start like this are not imperative: "please" cannot precede them.
NON_IMPERATIVE_STARTS = ("steps", "instructions", "let me know")

CHATTY_OPENERS = (
    "",
    "",
    "",
    "",
    *_lines("""
    hey, | hey there, | hi, | hi there, | hi! | hello, | hello! | good morning, | good morning!
    good afternoon, | morning! | ok, | ok so, | so, | um, | hmm, | well, | sorry to bother you,
    sorry, another one: | quick question: | silly question maybe: | just checking,
    hope you can help, | quick one: | one more thing: | hi, me again. | hi, hope you're well.
    hello, I have a question. | hey, hope your day is going well. | can you help me?
    need some help here. | stupid question:
    """),
)

CHATTY_CLOSERS = (
    *_BLANKS,
    *_lines("""
    thanks! | thanks. | thank you! | thanks a lot! | thanks in advance. | many thanks. | cheers!
    cheers. | ty | thx | thx! | no rush. | no hurry. | that would be great.
    would help me a lot. | appreciate it! | much appreciated. | it's a bit urgent.
    I need it today. | sorry for the trouble. | hope that makes sense. | can't find it anywhere.
    any help is welcome. | let me know.
    """),
)

STYLES: dict[str, Frames] = {
    "question": Frames(QUESTION_THINGS, QUESTION_ACTIONS, POLITE_OPENERS, POLITE_CLOSERS),
    "request": Frames(REQUEST_THINGS, REQUEST_ACTIONS, REQUEST_OPENERS, POLITE_CLOSERS),
    "keywords": Frames(KEYWORD_THINGS, KEYWORD_ACTIONS),
    "chatty": Frames(CHATTY_THINGS, CHATTY_ACTIONS, CHATTY_OPENERS, CHATTY_CLOSERS),
}
