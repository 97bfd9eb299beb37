// The service of tongues.wit, in JavaScript.

export const tongue = {
  greet({ name, age, nicknames }) {
    return `hello, ${name} (${age}), also known as ${nicknames.join(", ")}`;
  },
  echo(payload) {
    return payload;
  },
  scale(it, by) {
    switch (it.tag) {
      case "circle":
        return { tag: "circle", val: it.val * by };
      case "square":
        return { tag: "square", val: Math.trunc(it.val * by) };
      default:
        return it;
    }
  },
  divide(a, b) {
    // This tool hands negative integers over as if they were unsigned.
    [a, b] = [BigInt.asIntN(64, a), BigInt.asIntN(64, b)];
    if (b === 0n) throw "by-zero";
    if (a === -(2n ** 63n) && b === -1n) throw "too-large";
    return a / b;
  },
  reverse(people, note) {
    if (note !== undefined) people.forEach((person) => person.nicknames.push(note));
    return people.reverse();
  },
  missing({ read, write, execute }) {
    return { read: !read, write: !write, execute: !execute };
  },
  swap(a, b) {
    return [b, a];
  },
};
