// What is asked for. It is all in the page's address, so that the address can be shared.

export const HITS = 24;
const FILTERS = { is: "values", from: "from", to: "to" };

/** The query of an address. `image` names an uploaded picture, which only this browser has. */
export function readQuery(search) {
  const parameters = new URLSearchParams(search);
  const filters = new Map();
  for (const [key, value] of parameters) {
    const [prefix, name] = [key.slice(0, key.indexOf(".")), key.slice(key.indexOf(".") + 1)];
    if (!(prefix in FILTERS) || !value) continue;
    if (!filters.has(name)) filters.set(name, { values: [], from: "", to: "" });
    if (prefix === "is") filters.get(name).values.push(value);
    else filters.get(name)[prefix] = value;
  }
  const text = (name) => parameters.get(name) ?? "";
  const k = Number(text("k"));
  return {
    item: text("item"), image: text("item") ? "" : text("image"), text: text("text").trim(), filters,
    k: Number.isInteger(k) && k > 0 ? k : HITS, everyPicture: text("group") === "none", explain: text("explain") === "1",
  };
}

/** The address of a query. */
export function writeQuery(query) {
  const parameters = new URLSearchParams();
  for (const name of ["item", "image", "text"]) if (query[name]) parameters.set(name, query[name]);
  for (const [name, { values, from, to }] of query.filters) {
    for (const value of values) parameters.append(`is.${name}`, value);
    if (from) parameters.set(`from.${name}`, from);
    if (to) parameters.set(`to.${name}`, to);
  }
  if (query.everyPicture) parameters.set("group", "none"); // else one of each product is shown
  if (query.k !== HITS) parameters.set("k", query.k);
  if (query.explain) parameters.set("explain", "1");
  const search = parameters.toString();
  return search ? `/?${search}` : "/";
}

export const isSearch = (query) => Boolean(query.item || query.image || query.text);

/** The filters as the API takes them: triples of a field, an operator and a value. */
export function conditions(query, fields) {
  const found = [];
  for (const [name, { values, from, to }] of query.filters) {
    const field = fields.find((one) => one.name === name);
    const typed = (value) => asKind(value, field?.kind);
    if (values.length) found.push([name, "in", values.map(typed)]);
    if (from) found.push([name, ">=", typed(from)]);
    const isMoment = field?.kind === "date" && String(field.max).includes("T");
    if (to) found.push([name, "<=", isMoment ? `${to}T23:59:59.999999` : typed(to)]);
  }
  return found;
}

/** An address holds text; what cannot be a number stays as it is, and the server says so. */
function asKind(value, kind) {
  if (kind === "boolean") return value === "true";
  return kind === "number" && Number.isFinite(Number(value)) ? Number(value) : value;
}

/** Conditions as text, as `GET /v1/items` takes them. */
export function asText(triples) {
  const value = (one) => (typeof one === "string" ? `'${one.replaceAll("'", "''")}'` : String(one));
  return triples
    .map(([name, operator, one]) => {
      const right = Array.isArray(one) ? `(${one.map(value).join(", ")})` : value(one);
      return `\`${name.replaceAll("`", "``")}\` ${operator} ${right}`;
    })
    .join(" and ");
}

/** A query in words; `nameOf` returns the name of a product. */
export function describe(query, nameOf) {
  const words = query.text && `“${query.text}”`;
  if (!query.item && !query.image) return words || "All products";
  const like = `Like ${query.item ? nameOf(query.item) : "your picture"}`;
  return words ? `${like}, but ${words}` : like;
}
