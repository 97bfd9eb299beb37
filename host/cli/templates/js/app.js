// Greets people. The interface is in wit/{{name}}.wit.

export const {{object}} = {
  greet(name) {
    if (name === "") throw "nameless";
    return `Hello, ${name}!`;
  },
};
