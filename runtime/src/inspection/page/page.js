'use strict';
// Everything shown is set as text, never as markup: names in an image may be anything.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const MAX_ROWS = 300, MAX_DEPTH = 9, MIN_SIDE = 3, HEAD = 18;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId('data').textContent);
  const map = byId('treemap'), crumbs = byId('crumbs'), status = byId('status'), tip = byId('tip');

  const bytes = (count) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
    const tenths = Math.floor(count * 10) / 10;
    return `${count === Math.floor(count) ? count : tenths.toFixed(1)} ${units[unit]}`;
  };
  const percent = (part, whole) => (whole > 0 ? `${(100 * part / whole).toFixed(1)} %` : '0 %');
  const element = (name, attributes, ...children) => {
    const made = name.includes(':') ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // A node: { name, bytes, layer, wasted, count, children, parent }; only directories have children.
  const files = [];
  const grow = (raw, layer, parent) => {
    if (typeof raw[0] === 'number') {
      return { name: `${raw[0]} smaller files`, bytes: raw[1], layer, wasted: raw[2] === raw[1] && raw[1] > 0, count: raw[0], rest: true, parent };
    }
    const node = { name: raw[0], bytes: 0, layer, parent };
    if (Array.isArray(raw[1])) {
      node.children = raw[1].map((child) => grow(child, layer, node));
      node.bytes = node.children.reduce((sum, child) => sum + child.bytes, 0);
      return node;
    }
    node.bytes = raw[1];
    node.wasted = raw[2] === 1;
    files.push(node);
    return node;
  };
  const byLayer = { name: 'image', bytes: 0, children: [] };
  // A directory with nothing in it but another one is shown as one: `usr/share/doc`.
  const shorten = (node) => {
    for (const child of node.children) {
      if (!child.children) continue;
      while (child.children.length === 1 && child.children[0].children) {
        child.name = `${child.name}/${child.children[0].name}`;
        child.children = child.children[0].children;
        for (const inner of child.children) inner.parent = child;
      }
      shorten(child);
    }
  };
  data.layers.forEach((layer, index) => {
    const node = { name: layer.name, bytes: 0, layer: index, parent: byLayer };
    node.children = layer.tree.map((raw) => grow(raw, index, node));
    node.bytes = node.children.reduce((sum, child) => sum + child.bytes, 0);
    if (node.bytes > 0) byLayer.children.push(node);
    byLayer.bytes += node.bytes;
  });
  const order = (node) => node.children.sort((a, b) => b.bytes - a.bytes);
  order(byLayer);
  byLayer.children.forEach(shorten);
  files.sort((a, b) => b.bytes - a.bytes);

  // What a container sees: all layers in one tree, without what later layers took away.
  let merged = null;
  const oneFileSystem = () => {
    if (merged) return merged;
    merged = { name: '/', bytes: 0, children: [], index: new Map() };
    const add = (into, nodes) => {
      for (const node of nodes) {
        if (!node.children) {
          if (node.wasted) continue;
          into.children.push({ ...node, parent: into, of: node });
          for (let up = into; up; up = up.parent) up.bytes += node.bytes;
          continue;
        }
        let directory = into;
        for (const name of node.name.split('/')) {
          let next = directory.index.get(name);
          if (!next) {
            next = { name, bytes: 0, layer: node.layer, children: [], index: new Map(), parent: directory };
            directory.index.set(name, next);
            directory.children.push(next);
          }
          directory = next;
        }
        add(directory, node.children);
      }
    };
    byLayer.children.forEach((layer) => add(merged, layer.children));
    const sort = (node) => { order(node); node.children.forEach((child) => child.children && sort(child)); };
    sort(merged);
    shorten(merged);
    return merged;
  };

  const path = (node) => {
    const parts = [];
    for (let at = node; at && at.parent && at.parent !== byLayer; at = at.parent) parts.unshift(at.name);
    if (node.parent === byLayer) return node.name;
    return `/${parts.join('/')}`;
  };

  let mode = 'layers', here = byLayer, query = '', only = null, shown = [];
  const matches = (node) => {
    if (only !== null && data.layers[node.layer].owner !== only) return false;
    return query === '' || (!node.rest && path(node.of || node).toLowerCase().includes(query));
  };
  const isFiltered = () => query !== '' || only !== null;

  // Squarified treemap (Bruls, Huizing, van Wijk): rows along the shorter side, as square as they get.
  const squarify = (nodes, x, y, width, height, place) => {
    let total = nodes.reduce((sum, node) => sum + node.bytes, 0);
    let start = 0;
    while (start < nodes.length && total > 0 && width > 0 && height > 0) {
      const side = Math.min(width, height), scale = width * height / total;
      let end = start, sum = 0, worst = Infinity;
      while (end < nodes.length) {
        const next = sum + nodes[end].bytes, row = next * scale / side;
        const large = nodes[start].bytes * scale / row, small = nodes[end].bytes * scale / row;
        const ratio = Math.max(large / row, row / small);
        if (ratio > worst) break;
        worst = ratio; sum = next; end += 1;
      }
      const thick = sum * scale / side;
      let offset = 0;
      for (let at = start; at < end; at += 1) {
        const long = nodes[at].bytes * scale / thick;
        if (width >= height) place(nodes[at], x, y + offset, thick, long);
        else place(nodes[at], x + offset, y, long, thick);
        offset += long;
      }
      if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
      total -= sum;
      start = end;
    }
  };
  // Children that would be specks are one rectangle.
  const visible = (node, area) => {
    const least = MIN_SIDE * MIN_SIDE * node.bytes / area, children = node.children.filter((child) => child.bytes > 0);
    const large = children.filter((child) => child.bytes >= least), small = children.filter((child) => child.bytes < least);
    if (small.length < 2) return children.sort((a, b) => b.bytes - a.bytes);
    const sum = small.reduce((total, child) => total + child.bytes, 0);
    const rest = { name: `${small.length} smaller`, bytes: sum, layer: small[0].layer, rest: true, parent: node };
    return [...large, rest].sort((a, b) => b.bytes - a.bytes);
  };
  const cut = (text, width) => {
    const most = Math.floor((width - 8) / 6.6);
    return text.length <= most ? text : most > 3 ? `${text.slice(0, most - 1)}…` : '';
  };
  const whole = (text, width) => (text.length <= Math.floor((width - 8) / 6.6) ? text : '');
  const colour = (node) => `c${data.layers[node.layer].colour}`;

  const draw = (group, node, x, y, width, height, depth) => {
    const rect = element('svg:rect', { x, y, width, height, class: colour(node) });
    group.append(rect);
    if (node.children) {
      if (width > 46 && height > 30) {
        group.append(element('svg:rect', { x, y, width, height: HEAD, class: 'head' }));
        const label = whole(`${node.name}  ${bytes(node.bytes)}`, width) || cut(node.name, width);
        group.append(element('svg:text', { x: x + 5, y: y + 13 }, label));
        if (depth < MAX_DEPTH) {
          const inside = [x + 2, y + HEAD, width - 4, height - HEAD - 2];
          squarify(visible(node, inside[2] * inside[3]), ...inside, (child, ...place) => {
            draw(group, child, ...place, depth + 1);
          });
        }
      }
      return;
    }
    if (isFiltered() && !matches(node)) rect.classList.add('dim');
    if (node.wasted) group.append(element('svg:rect', { x, y, width, height, class: 'waste' }));
    if (width > 40 && height > 15) group.append(element('svg:text', { x: x + 5, y: y + 13 }, cut(node.name, width)));
    if (width > 50 && height > 32) group.append(element('svg:text', { x: x + 5, y: y + 27, class: 'size' }, whole(bytes(node.bytes), width)));
  };

  const describe = (node) => {
    const what = node.children ? (node.parent === byLayer ? 'layer' : 'directory') : node.rest ? '' : 'file';
    const owner = node.children && mode === 'files' ? '' : `, ${data.layers[node.layer].owner}`;
    return `${node.name}${what && `, ${what}`}, ${bytes(node.bytes)}, ${percent(node.bytes, here.bytes)} of what is shown${owner}`
      + (node.wasted ? ', hidden by a later layer' : '');
  };

  const render = (focus) => {
    const { width, height } = map.getBoundingClientRect();
    map.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const hatch = element('svg:pattern', { id: 'hatch', width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      element('svg:path', { d: 'M0 0V7' }));
    map.replaceChildren(element('svg:defs', {}, hatch));
    shown = [];
    squarify(visible(here, width * height), 0, 0, width, height, (node, x, y, w, h) => {
      const group = element('svg:g', {
        class: node.children ? 'item' : 'item leaf', role: node.children ? 'button' : 'img', tabindex: -1,
        'aria-label': describe(node), 'data-bytes': node.bytes,
      });
      draw(group, node, x, y, w, h, 0);
      map.append(group);
      shown.push({ node, group, x: x + w / 2, y: y + h / 2 });
    });
    if (shown.length > 0) {
      const first = shown.find((item) => item.node === focus) || shown[0];
      first.group.setAttribute('tabindex', 0);
      if (focus) first.group.focus({ preventScroll: true });
    } else {
      map.append(element('svg:text', { x: 16, y: 28 }, 'There are no bytes here.'));
    }
    const trail = [];
    for (let at = here; at; at = at.parent) trail.unshift(at);
    crumbs.replaceChildren(...trail.flatMap((node, index) => {
      const button = element('button', { type: 'button' }, node.name);
      button.disabled = node === here;
      button.addEventListener('click', () => go(node));
      return index === 0 ? [button] : [document.createTextNode('›'), button];
    }));
    status.textContent = `${path(here) === '/' ? here.name : path(here)}: ${bytes(here.bytes)}`;
  };
  const go = (node, focus) => {
    if (!node || !node.children) return;
    here = node;
    hideTip();
    render(focus || null);
  };

  const itemOf = (target) => shown.find((item) => item.group === (target.closest && target.closest('g.item')));
  map.addEventListener('click', (event) => {
    const item = itemOf(event.target);
    if (item && item.node.children) go(item.node, item.node.children[0]);
    else if (item) status.textContent = `${item.node.rest ? item.node.name : path(item.node)}: ${describe(item.node)}`;
  });
  map.addEventListener('keydown', (event) => {
    const item = itemOf(event.target);
    if (event.key === 'Escape' || event.key === 'Backspace') {
      const left = here;
      if (here.parent) go(here.parent, left);
    } else if ((event.key === 'Enter' || event.key === ' ') && item) {
      if (item.node.children) go(item.node, item.node.children[0]);
    } else if (event.key.startsWith('Arrow') && item) {
      const across = event.key === 'ArrowLeft' || event.key === 'ArrowRight';
      const sign = event.key === 'ArrowRight' || event.key === 'ArrowDown' ? 1 : -1;
      let best = null, least = Infinity;
      for (const other of shown) {
        const along = sign * (across ? other.x - item.x : other.y - item.y);
        const aside = Math.abs(across ? other.y - item.y : other.x - item.x);
        if (along > 1 && along + 2 * aside < least) { least = along + 2 * aside; best = other; }
      }
      if (best) {
        item.group.setAttribute('tabindex', -1);
        best.group.setAttribute('tabindex', 0);
        best.group.focus();
      }
    } else {
      return;
    }
    event.preventDefault();
  });
  const hideTip = () => { tip.hidden = true; };
  map.addEventListener('mousemove', (event) => {
    const item = itemOf(event.target);
    if (!item) { hideTip(); return; }
    tip.textContent = describe(item.node);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - box.width - 8)}px`;
    tip.style.top = `${event.clientY + 18 + box.height > window.innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
  });
  map.addEventListener('mouseleave', hideTip);

  const rows = byId('files').querySelector('tbody');
  const list = () => {
    let count = 0, sum = 0;
    const made = [];
    for (const file of files) {
      if (!matches(file)) continue;
      count += 1;
      sum += file.bytes;
      if (made.length >= MAX_ROWS) continue;
      const link = element('button', { type: 'button', class: 'link path', title: 'Show where it is' }, path(file));
      link.addEventListener('click', () => {
        if (mode !== 'layers') choose('layers');
        go(file.parent, file);
        map.scrollIntoView({ block: 'nearest' });
      });
      const dot = element('span', { class: `dot ${colour(file)}` });
      made.push(element('tr', file.wasted ? { class: 'gone' } : {}, element('td', { class: 'number' }, bytes(file.bytes)), element('td', {}, link),
        element('td', {}, dot, data.layers[file.layer].name), element('td', {}, file.wasted ? 'hidden by a later layer' : '')));
    }
    rows.replaceChildren(...made);
    const more = count > made.length ? `; the ${made.length} largest are listed` : '';
    byId('count').textContent = isFiltered() ? `${count} files match, ${bytes(sum)} together${more}.` : `${count} files, ${bytes(sum)} together${more}.`;
  };

  const choose = (wanted) => {
    mode = wanted;
    here = mode === 'layers' ? byLayer : oneFileSystem();
    for (const button of document.querySelectorAll('[data-mode]')) button.setAttribute('aria-pressed', button.dataset.mode === mode);
    render(null);
  };
  for (const button of document.querySelectorAll('[data-mode]')) button.addEventListener('click', () => choose(button.dataset.mode));
  const search = byId('search');
  let waiting = 0;
  search.addEventListener('input', () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { query = search.value.trim().toLowerCase(); render(null); list(); }, 120);
  });
  const legend = byId('legend');
  const owners = [...new Map(data.layers.map((layer) => [layer.owner, layer.colour]))];
  for (const [owner, chosen] of owners) {
    const button = element('button', { type: 'button', 'aria-pressed': false }, element('span', { class: `dot c${chosen}` }), owner);
    button.addEventListener('click', () => {
      only = only === owner ? null : owner;
      for (const other of legend.querySelectorAll('button')) other.setAttribute('aria-pressed', other === button && only !== null);
      render(null);
      list();
    });
    legend.append(element('li', {}, button));
  }
  for (const hidden of document.querySelectorAll('[data-script]')) hidden.hidden = false;
  let resizing = 0;
  window.addEventListener('resize', () => { clearTimeout(resizing); resizing = setTimeout(() => render(null), 100); });
  render(null);
  list();
})();
