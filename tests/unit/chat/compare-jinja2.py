#!/usr/bin/env python3
"""Renders the templates below with Jinja2 (set up as transformers does) and with ours; TAP, one case a group.

compare-jinja2.py RENDER_LINES: the program that renders ours. Where Jinja2 raises an error, ours has to refuse too.
"""
import datetime
import json
import subprocess
import sys

VARIABLES = {
    'messages': [{'role': 'system', 'content': ' Be brief.\n'}, {'role': 'user', 'content': 'Hi there!'},
                 {'role': 'assistant', 'content': 'Hello\nworld', 'tool_calls': [{'function': {'name': 'f', 'arguments': {'x': 1}}}]},
                 {'role': 'user', 'content': '\u20ac \u00e9\U0001f600'}],
    'numbers': [3, 1, 2], 'mixed': [1, 2.5, 'a', None, True, [1], {'k': 'v'}], 'empty': [], 'n': 7, 'f': 2.5, 's': 'a,b,,c',
    'd': {'b': 1, 'a': {'c': [1, 2]}}, 'name': "it's \"q\"", 'bos_token': '<s>', 'add_generation_prompt': True, 'none': None,
    'tools': [{'type': 'function', 'function': {'name': 'get', 'description': 'Get <it> & \u00fc', 'parameters': {'type': 'object', 'properties': {'a': {'type': 'string'}}}}}],
}

GROUPS = {
    'whitespace control': [
        'a\n{% if n %}\nb\n{% endif %}\nc\n', '  {% if n %}\n  b\n  {% endif %}  \n c', 'a {%- if n -%} b {%- endif -%} c', 'a\n  {%+ if n %}\nb{% endif +%}\nc',
        '{{ n }}\n{{ n }}\n\n', ' {{- n -}} \n x', '{# c #}\na', '  {# c #}  \na', 'a {#- c -#} b', '\n\n{% set x = 1 %}\n\n{{ x }}', 'x\r\ny\rz', '{% for m in messages %}\n  {{ m.role }}\n{% endfor %}\n',
        '{% for i in numbers -%}\n   {{ i }}\n{%- endfor %}', 'a{% raw %} {{ x }} {% y %} {% endraw %}b', '  {%- raw -%}  {{ x }}  {%- endraw -%}  b', '\t{% if n %}\tx{% endif %}', 'é {% if n %}\n ü{% endif %}',
        '{%if n%}a{%endif%}{{n}}{%- if f-%} b{% endif-%} c', '{{ "}}" }}{{ \'%}\' }}', '{% if n %}\n\n{% endif %}x', 'a  \n  {%- set y = 2 %}  \nb',
    ],
    'expressions': [
        '{{ 1 + 2 * 3 - 4 / 2 }}', '{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }} {{ -7.5 // 2 }}', '{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}', "{{ 'a' ~ 1 ~ none ~ true ~ 2.0 }}",
        '{{ 1 == 1.0 }} {{ true == 1 }} {{ "1" == 1 }} {{ none == false }}', '{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 != 2 }} {{ "a" < "b" }} {{ [1, 2] < [1, 3] }}', '{{ not n }} {{ not not n }} {{ not 0 and 1 }} {{ 0 or "x" }} {{ "" or none }} {{ 1 and 2 }}',
        '{{ 2 in numbers }} {{ 9 not in numbers }} {{ "a" in d }} {{ "b," in s }} {{ not "z" in s }}', "{{ 'yes' if n else 'no' }} {{ 'x' if false }} {{ 1 if 0 else 2 if 0 else 3 }}", '{{ [1, 2][0] }} {{ (1, 2)[-1] }} {{ {"a": 1}["a"] }} {{ {"a": 1}.a }} {{ "abc"[1] }} {{ "a\u20acc"[1] }}',
        '{{ numbers[1:] }} {{ numbers[:-1] }} {{ numbers[::-1] }} {{ numbers[::2] }} {{ "abcdef"[1:4] }} {{ "abcdef"[::-2] }} {{ "abc"[5:] }} {{ "abc"[-9:2] }} {{ numbers[9:0:-1] }} {{ numbers[-1:-9:-1] }}',
        '{{ (1) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }} {{ 1, 2 }}', "{{ 'a' 'b' }} {{ \"x\\n\\ty\\\\z\\'\\u20ac\\x41\" }}", '{{ mixed }}', '{{ name }} {{ [name] }} {{ ["it\'s", \'"\', "a\\nb\\t\\\\"] }}', '{{ undefined_name }}|{{ d.nothing }}|{{ numbers[9] }}',
        '{{ 1.0 }} {{ 0.1 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.125 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1.5e300 }} {{ -0.0 }} {{ 3.0 * 1.1 }}', '{{ +n }} {{ -n }} {{ --n }} {{ -f }}', '{{ "ab" * 3 }} {{ 2 * "x" }} {{ [1] + [2] }} {{ "a" + "b" }}',
        '{{ loop }}|', '{{ n.x }}|{{ n["x"] }}|', '{{ true }} {{ True }} {{ none }} {{ None }} {{ False }}', '{{ d["a"]["c"][1] }} {{ d.a.c[0] }} {{ d.a.c.1 }}', '{{ messages[0]["role"] }}{{ messages[-1].content }}', '{{ 10 is divisibleby 5 and not (3 is odd) }}',
        '{{ n is defined and n > 3 or x.y }}', '{{ ("a" if n > 3 else "b") ~ "c" }}', '{{ 5 > 3 == true }}', '{{ "%s" }}{{ "a" "b"|upper }}', '{{ [n, f]|sum }} {{ numbers|max - numbers|min }}', '{{ -numbers|first }} {{ 2 ** numbers|length }}',
    ],
    'statements': [
        '{% if n == 1 %}a{% elif n == 7 %}b{% elif 1 %}c{% else %}d{% endif %}', '{% for i in [] %}x{% else %}none{% endfor %}', '{% for i in numbers %}{{ loop.index }}/{{ loop.length }}{{ "," if not loop.last }}{% endfor %}',
        '{% for i in numbers if i > 1 %}{{ loop.index0 }}{{ i }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}', '{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}', '{% for k in d %}{{ k }}{% endfor %}',
        '{% for c in "a\u20acb" %}[{{ c }}]{% endfor %}', '{% for i in numbers %}{% for j in numbers %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}', '{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}',
        '{% set x = 1 %}{% for i in numbers %}{% set x = i %}{{ x }}{% endfor %}{{ x }}', '{% set x = 1 %}{% if n %}{% set x = 2 %}{% endif %}{{ x }}', '{% set ns = namespace(found=false, c=0) %}{% for m in messages %}{% if m.role == "user" %}{% set ns.found = true %}{% set ns.c = ns.c + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.c }}',
        '{% set a, b = 1, 2 %}{{ a }}{{ b }}', '{% set (a, b) = [3, 4] %}{{ a + b }}', '{% set x %}a{{ n }}b{% endset %}[{{ x }}]{{ x|length }}', '{% set x | upper %}abc{% endset %}{{ x }}', '{% filter upper %}a{{ "b" }}{% endfilter %}c', '{% filter trim|upper %}  a {% endfilter %}c',
        '{% macro m(a, b=2, c="x") %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}{{ m() }}', '{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}', '{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{{ n }}{% endcall %}',
        '{% macro m(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) m(numbers) %}[{{ x }}]{% endcall %}', '{% set g = "G" %}{% macro m() %}{{ g }}{% endmacro %}{{ m() }}', '{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}', '{% with %}{% set q = 1 %}{{ q }}{% endwith %}[{{ q }}]',
        '{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}', '{% for i in numbers %}{{ loop.previtem }}<{{ loop.nextitem }} {% endfor %}', '{% for i in numbers %}{{ loop.cycle("a", "b") }}{% endfor %}', '{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}', '{% for i in numbers %}{{ loop.depth }}{% for j in [1] %}{{ loop.depth }}{% endfor %}{% endfor %}',
        '{% for i in undefined_name %}x{% endfor %}|', '{% for m in messages[1:] %}{{ m.role }} {% endfor %}', '{% for x in numbers | sort %}{{ x }}{% endfor %}', '{% set x = d %}{{ x.b }}', '{% for i in (1, 2) %}{{ i }}{% endfor %}', '{% for k, v in d|dictsort %}{{ k }}{% endfor %}', '{% if not loop is defined %}ok{% endif %}',
        '{% for i in numbers %}{% set outer = loop %}{% for j in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}', '{% macro f(a) %}{{ a }}{% endmacro %}{% for i in numbers %}{{ f(i) }}{% endfor %}', '{% set f = none %}{% if f is none %}n{% endif %}',
    ],
    'filters': [
        '{{ "  a b " | trim }}|{{ "xxaxx" | trim("x") }}', '{{ "aBc" | upper }}{{ "aBc" | lower }}{{ "hello wORLD it\'s" | title }}{{ "hELLO" | capitalize }}', '{{ x | default("d") }}{{ "" | default("d") }}{{ "" | default("d", true) }}{{ none | default("d") }}{{ none | d("e", boolean=true) }}',
        '{{ numbers | join }} {{ numbers | join("-") }} {{ mixed | join(",") }} {{ messages | join("|", attribute="role") }}', '{{ numbers | length }} {{ "\u20acab" | length }} {{ d | count }}', '{{ numbers | first }} {{ numbers | last }} {{ "abc" | last }} [{{ empty | first }}]', '{{ "abc" | list }} {{ d | list }} {{ range(3) | list }}',
        '{{ 3.7 | int }} {{ "12" | int }} {{ "x" | int }} {{ "x" | int(5) }} {{ "3.9" | int }} {{ "2.5" | float }} {{ "x" | float }} {{ true | int }}', '{{ -3 | abs }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(0, "ceil") }} {{ 2.9 | round(method="floor") }} {{ 3.5 | round }} {{ 7 | round }}',
        '{{ d | tojson }} {{ mixed | tojson }} {{ name | tojson }} {{ "<\u20ac>&\'" | tojson }}', '{{ d | tojson(indent=2) }}', '{{ tools | tojson(indent=4) }}', '{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }} {{ 1.0 | tojson }} {{ "a\\n\\t\\"\\\\\\u0001" | tojson }}', '{{ d | items | list }} {{ d | dictsort }} {{ d | dictsort(reverse=true) }}',
        '{{ numbers | sort }} {{ numbers | sort(reverse=true) }} {{ ["b", "A", "c"] | sort }} {{ ["b", "A", "c"] | sort(case_sensitive=true) }} {{ messages | sort(attribute="role") | map(attribute="role") | list }}', '{{ numbers | reverse | list }} {{ "abc" | reverse }}', '{{ [1, 2, 1, "a", "A"] | unique | list }}',
        '{{ messages | map(attribute="role") | list }} {{ ["a", "b"] | map("upper") | join }} {{ numbers | map("string") | list }} {{ [{"x": 1}, {}] | map(attribute="x", default=9) | list }}', '{{ numbers | select("odd") | list }} {{ numbers | reject("odd") | list }} {{ mixed | select | list }} {{ numbers | select(">", 1) | list if false }}',
        '{{ messages | selectattr("role", "equalto", "user") | list | length }} {{ messages | rejectattr("role", "eq", "user") | map(attribute="role") | list }} {{ messages | selectattr("tool_calls") | list | length }} {{ messages | selectattr("tool_calls", "defined") | list | length }}', '{{ numbers | min }} {{ numbers | max }} {{ numbers | sum }} {{ [1.5, 2] | sum }}',
        '{{ "a\nb\n\nc" | indent }}|{{ "a\nb" | indent(2, true) }}|{{ "a\n\nb" | indent(2, blank=true) }}|{{ "a\nb\n" | indent(width=3) }}', '{{ "a b  c" | wordcount }} {{ "<a href=\'x\'>&\\"" | e }} {{ "x" | safe }} {{ "<" | escape }}', '{{ "aXbX" | replace("X", "-") }} {{ "aaa" | replace("a", "b", 2) }}', '{{ 42 | string ~ "x" }} {{ n | string | length }}', '{{ d | attr("b") }}|{{ messages | map(attribute="content") | map("trim") | map("length") | list }}',
        '{{ "a,b" | upper | replace(",", "") | lower }}', '{{ [3,1] | sort | first }}', '{{ {"b": 1, "a": 2} | tojson(sort_keys=true) }} {{ {"b": 1} | tojson(separators=(",", ":")) }} {{ "\u20ac" | tojson(ensure_ascii=true) }}',
    ],
    'texts with values': [
        "{{ '<{}|{}>'.format(n, 'x') }} {{ '{0}{1}{0}'.format(1, 2) }} {{ '{a}-{b}'.format(a=1, b=none) }} {{ '{{}}{}'.format(f) }} {{ '{!r} {x!s}'.format('q', x=numbers) }} {{ ''.format() }}",
        "{{ '%s|%d|%r|%i%%' | format(s, n, 'q', true) }} {{ '%s' % n }} {{ '%s-%s' % (1, 2) }} {{ '%d' % 3.9 }} {{ '%s' % [1] }} {{ 'a%%' % () }}",
        '{{ "a-b-c".partition("-") }} {{ "a-b-c".rpartition("-") }} {{ "abc".partition("-") }} {{ "abc".rpartition("-") }} {{ "\u20ac=1".partition("=")[2] }}',
        """{{ "<b>"|safe + "<i>" }} {{ "<i>" + "<b>"|safe + '&"' }} {{ "<"|e|e }} {{ "<"|safe|e }} {{ ("<"|e) + ">" }} {{ "<b>"|safe ~ "<i>" }} {{ ("<b>"|safe)|length }} {{ "<b>"|safe|tojson }}""",
        '{{ none | selectattr("x") | list }} {{ none | map("upper") | list }} {{ undefined_name | select | list }} {{ "" | reject | list }} {{ 0 | rejectattr("x") | list }} {{ undefined_name | map(attribute="x") | join }}',
    ],
    'a form of each published template': [
        # DeepSeek: state in a namespace, text split at its thoughts, tool calls numbered
        "{% set ns = namespace(is_first=false, is_tool=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<U>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<A>' + content + '<E>'}}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.is_tool %}{{'<A><think>\n'}}{% endif %}",
        # Command R: tools as Python signatures by macro
        "{% macro json_to_python_type(t) %}{%- set types = {'string': 'str', 'integer': 'int', 'array': 'List'} %}{%- if t.type in types %}{{ types[t.type] }}{%- else %}Any{%- endif %}{% endmacro %}{% for tool in tools %}def {{ tool.function.name }}({%- for k, v in tool.function.parameters.properties.items() -%}{{ k }}: {{ json_to_python_type(v) }}{%- if not loop.last %}, {% endif %}{%- endfor -%}) -> List[Dict]:\n    \"\"\"{{ tool.function.description }}\"\"\"{% endfor %}",
        # Hermes and Qwen 2.5: tools as JSON lines
        "{%- if tools %}{{- '<tools>' }}{%- for tool in tools %}{{- \"\\n\" }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools>' }}{%- endif %}{%- for message in messages %}{%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}{{- '<tool_call>{\"name\": \"' }}{{- tool_call.name }}{{- '\", \"arguments\": ' }}{{- tool_call.arguments | tojson }}{{- '}</tool_call>' }}{%- endfor %}{%- endif %}{%- endfor %}",
        # Qwen 3: messages backwards, thoughts cut out, an empty thought
        "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}{{ ns.last_query_index }}{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{%- endif %}{{ 'a\n</think>\n\nb'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}",
        # Llama 3.x: date, tools in the user's message
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}{{ date_string }}|{{ system_message }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}{%- for m in messages %}{%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}{{- m['content'] | trim }}{%- elif 'tool_calls' in m %}{%- if not m.tool_calls|length == 1 %}{{- raise_exception('one') }}{%- endif %}{%- set tool_call = m.tool_calls[0].function %}{{- tool_call.arguments | tojson }}{%- endif %}{%- endfor %}",
        # gpt-oss: TypeScript types by macros that call each other, the date, channels
        "{%- macro render(spec, required, is_nullable=false) -%}{%- if spec.type == 'array' -%}{%- if spec['items'] -%}{{- render(spec['items'], required) }}[]{%- else -%}any[]{%- endif -%}{%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}{{- spec.type | join(' | ') }}{%- elif spec.enum -%}{{- '\"' + spec.enum|join('\" | \"') + '\"' }}{%- elif spec.type == 'object' -%}{{- '{' }}{%- for k, v in spec.properties.items() -%}{{- k }}{%- if k not in (spec.required or []) -%}?{%- endif -%}: {{ render(v, spec.required or []) }}{%- if not loop.last -%}, {%- endif -%}{%- endfor -%}{{- '}' }}{%- else -%}{{- spec.type }}{%- endif -%}{%- endmacro -%}{{- 'Current date: ' + strftime_now('%Y-%m-%d') + '\n' }}{%- for tool in tools %}type {{ tool.function.name }} = (_: {{ render(tool.function.parameters, []) }}) => any;{%- endfor %}{{ render({'type': 'array', 'items': {'enum': ['a', 'b'], 'type': 'string'}}, []) }}{{ render({'type': ['string', 'null']}, []) }}",
        # Gemma 3: turns have to alternate, parts of content
        "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}{%- for message in loop_messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}",
        # Phi 4 and Granite 3: plain loops, a date, what is defined
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{%- if documents %}x{%- elif tools and not documents is defined %}{{ strftime_now('%B %d, %Y') }}{{ tools | tojson(indent=4) }}{%- endif %}{%- if thinking %}t{%- endif %}{%- if controls and 'length' in controls and controls['length'] is string %}c{%- endif %}",
        # Mistral: ids of nine letters, the last user message, lists by comparison
        "{%- set user_messages = messages | selectattr('role', 'equalto', 'user') | list %}{%- for message in messages | rejectattr('role', 'equalto', 'system') | rejectattr('role', 'equalto', 'tool') | selectattr('tool_calls', 'undefined') %}{{ loop.index0 }}{%- if tools is not none and (message == user_messages[-1]) %}[AVAILABLE_TOOLS][{%- for tool in tools %}{%- set tool = tool.function %}{{- '{\"type\": \"function\", \"function\": {' }}{%- for key, val in tool.items() if key != 'return' %}{%- if val is string %}{{- '\"' + key + '\": \"' + val + '\"' }}{%- else %}{{- '\"' + key + '\": ' + val|tojson }}{%- endif %}{%- if not loop.last %}, {% endif %}{%- endfor %}{{- '}}' }}{%- endfor %}{%- endif %}{%- endfor %}{%- set today = strftime_now('%Y-%m-%d') %}{%- set yesterday = today %}{{ today }}",
        # Functionary: nothing given is none, sums of marked texts
        "{%- if not functions is defined -%}{%- set functions = none -%}{%- endif -%}{%- set has = functions | selectattr('type', 'equalto', 'code_interpreter') | list | length > 0 -%}{{ has }}{% for t in tools %}{{ \"Use '\"|safe + t['function']['name'] + \"' to '\"|safe + t['function']['description'] + \"'\\n\"|safe + t['function'] | tojson() }}{% endfor %}",
        # transformers' mark for training
        "{% for m in messages %}{% if m.role == 'assistant' %}{%- generation %}\n{{ m.content }}{%- endgeneration %}{% endif %}{% endfor %}",
    ],
    'tests': [
        '{{ n is defined }} {{ x is defined }} {{ x is undefined }} {{ x is not defined }} {{ d.b is defined }} {{ d.zz is defined }}', '{{ none is none }} {{ n is none }} {{ n is number }} {{ f is number }} {{ true is number }} {{ n is integer }} {{ f is float }} {{ true is integer }} {{ true is boolean }} {{ n is boolean }}',
        '{{ s is string }} {{ n is string }} {{ d is mapping }} {{ numbers is mapping }} {{ numbers is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }} {{ numbers is iterable }} {{ n is iterable }} {{ s is iterable }}', '{{ 3 is odd }} {{ 3 is even }} {{ 0 is even }} {{ -3 is odd }} {{ 6 is divisibleby(3) }} {{ 6 is divisibleby 4 }}',
        '{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is ge 1 }} {{ 1 is gt 1 }} {{ 1 is le 0 }} {{ 2 is in numbers }} {{ 2 is not in [1] }} {{ true is sameas true }} {{ 1 is sameas true }}', '{{ "a" is lower }} {{ "aB" is lower }} {{ "AB" is upper }} {{ "1" is upper }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ range is callable }} {{ n is callable }}',
        '{{ n is defined and n is not none }} {{ (n is string) or (n is integer) }} {{ not n is defined }}', '{{ "x" if messages[0].role is equalto "system" else "y" }}', '{{ messages[2].tool_calls is defined and messages[2].tool_calls is iterable }}',
    ],
    'methods and functions': [
        '{{ " a ".strip() }}|{{ "xax".strip("x") }}|{{ "  a".lstrip() }}|{{ "a  ".rstrip() }}|{{ "\u20aca\u20ac".strip("\u20ac") }}|{{ "abcba".strip("ab") }}', '{{ s.split(",") }} {{ " a  b ".split() }} {{ "a-b-c".split("-", 1) }} {{ "a-b-c".rsplit("-", 1) }} {{ "a-b".split("-")[0] }} {{ "x".split("</think>")[-1] }} {{ "a b c".split(None, 1) }}',
        '{{ "a\nb\n".splitlines() }} {{ "abc".startswith("ab") }} {{ "abc".endswith("bc") }} {{ "abc".startswith(("x", "a")) }}', '{{ "aBc".upper() }} {{ "aBc".lower() }} {{ "ab cd".title() }} {{ "aBC".capitalize() }}', '{{ "aXb".replace("X", "--") }} {{ "abcb".find("b") }} {{ "abcb".rfind("b") }} {{ "abc".find("z") }} {{ "\u20acb".find("b") }} {{ "abab".count("ab") }}',
        '{{ ",".join(["a", "b"]) }} {{ "12".isdigit() }} {{ "a1".isdigit() }} {{ "ab".isalpha() }} {{ " ".isspace() }} {{ "prefix-x".removeprefix("prefix-") }} {{ "x.py".removesuffix(".py") }}', '{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get("b") }} {{ d.get("z") }} {{ d.get("z", 5) }}',
        '{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {{ range(0) | list }}', '{{ dict(a=1, b=2) }} {{ dict(d, b=3) }}', '{{ namespace(a=1).a }}', '{{ strftime_now("%Y-%m-%d %H:%M") }}', "{{ message.get('x') if message is defined else 'no' }}", "{{ 'a' in 'abc' and 'abc'.split('b')[1] == 'c' }}", '{{ messages[1].content.split(" ")[0].upper() }}', "{{ (messages[2].content | trim).split('\n')[-1] }}",
    ],
    'errors': [
        '{{ x.y }}', '{{ x["y"] }}', '{{ x + 1 }}', '{{ "a" + 1 }}', '{{ 1 / 0 }}', '{{ x() }}', '{{ n() }}', '{{ raise_exception("stop") }}', '{{ 1 | nofilter }}', '{{ 1 is notest }}', '{% if %}{% endif %}', '{% for x %}{% endfor %}', '{{ }}', '{{ 1 + }}', '{% endif %}', '{{ (1 }}', '{{ "a }}', '{% set %}', '{{ numbers.append(4) }}', '{{ d.update({}) }}', '{{ "a" < 1 }}',
        '{% for a, b in numbers %}{% endfor %}', '{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}', '{{ "x" in 5 }}', '{{ [1, "a"] | sort }}', '{% set x.y = 1 %}', '{{ "{}".format() }}', '{{ "{" .format(1) }}', '{{ "}".format(1) }}', '{{ "{x}".format(1) }}', '{{ "%d" % "a" }}', '{{ "%s" % () }}', '{{ "%s" % (1, 2) }}', '{{ "%" % 1 }}', '{{ "a".partition("") }}', '{{ 1 if }}', '{% elif %}', '{{ -"a" }}',
    ],
}


def environment():
    import jinja2.sandbox
    import jinja2.ext

    def fail(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    class Generation(jinja2.ext.Extension):
        """{% generation %}: for training transformers notes what is inside; rendered, it is just that."""
        tags = {'generation'}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method('_inside'), [], [], body).set_lineno(line)

        def _inside(self, caller):
            return caller()
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[jinja2.ext.loopcontrols, Generation])
    env.filters['tojson'] = tojson
    env.globals['raise_exception'] = fail
    now = datetime.datetime(2025, 3, 14, 15, 9, 26)
    env.globals['strftime_now'] = now.strftime
    return env


def main():
    print('1..%d' % len(GROUPS))
    try:
        env = environment()
    except ImportError:
        for number, name in enumerate(GROUPS, 1):
            print('ok %d - %s # SKIP Jinja2 is not installed' % (number, name))
        return 0
    sources = [s for group in GROUPS.values() for s in group]
    lines = ''.join(json.dumps({'source': s, 'variables': VARIABLES}) + '\n' for s in sources)
    answers = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True).stdout.splitlines()
    if len(answers) != len(sources):
        print('Bail out! the renderer ended after %d of %d templates' % (len(answers), len(sources)))
        return 1
    answers = dict(zip(sources, map(json.loads, answers)))
    failed = False
    for number, (name, group) in enumerate(GROUPS.items(), 1):
        wrong = []
        for source in group:
            try:
                expected = env.from_string(source).render(**VARIABLES)
            except Exception as error:  # any error of theirs is one for us too
                if 'text' in answers[source]:
                    wrong.append((source, 'an error: %s' % error, answers[source]['text']))
                continue
            if answers[source].get('text') != expected:
                wrong.append((source, expected, answers[source]))
        failed = failed or bool(wrong)
        print('%sok %d - %s: %d templates' % ('not ' if wrong else '', number, name, len(group)))
        for source, expected, ours in wrong:
            print('# %r\n#   Jinja2 %r\n#   ours   %r' % (source, expected, ours))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
