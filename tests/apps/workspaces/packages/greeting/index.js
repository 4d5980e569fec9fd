module.exports = () => ({ greeting: "Hello", ms: require("ms/package.json").version });
